"""Where keys are made and retired: the root, the files of the keys that are derived from it, and which of them signs.

::

    keys/root               32 random bytes in hex: only the auth role and `streamgate keys` read it
    keys/generations.json   how many keys each site had, which one signs, which verify; no secret
    keys/SITE.N.toml        a key that an edge may hold

Whoever changes them holds a lock, and each file is there as a whole or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from streamgate.access import keyring, keys
from streamgate.access.keyring import Generations, Ring
from streamgate.access.keys import Defaults
from streamgate.errors import StreamGateError

ROOT = "root"
STATE = "generations.json"
SUFFIX = ".toml"
_LOCK = ".lock"
_MAX_STATE = 2**20


class Workshop:
    """Makes and retires keys of ``site``: the files in ``folder``, from the root in the file ``root``. All blocking.

    All raise ``config_invalid`` for files that cannot be read or written, for a root that others may read, and for one that
    is missing beside keys that were derived from it.
    """

    def __init__(self, folder: Path, root: Path, site: str, defaults: Defaults) -> None:
        self._folder = folder
        self._root = root
        self._site = site
        self._defaults = defaults

    def first(self) -> None:
        """Make the first key, and the root, where the folder holds no key at all. Of several who do so one does it."""
        with self._errors():
            if any(self._folder.glob(f"*{SUFFIX}")):
                return
        with self._locked():
            if not any(self._folder.glob(f"*{SUFFIX}")):
                self._sign(self._new())

    def ring(self) -> Ring:
        """The root, which is made where there is none and no key of one, and all generations."""
        with self._errors():
            return Ring(self._own_root(), read(self._folder))

    def new(self) -> str:
        """Make the next key, which verifies from now on; its kid. It does not sign yet: let all who verify see it first."""
        with self._locked():
            return keyring.kid(self._site, self._new())

    def sign(self, kid: str) -> None:
        """Let a key of the site sign from now on."""
        with self._locked():
            self._sign(self._number(kid))

    def retire(self, kid: str, files: Sequence[Path]) -> None:
        """Remove a key's files: its tokens are dead as soon as they have gone."""
        with self._locked():
            found = keyring.parse_kid(kid)
            held = read(self._folder)
            if found is not None and found[0] in held and found[1] in held[found[0]].verifying:
                self._write({**held, found[0]: held[found[0]].retire(found[1])})
            for file in files:
                file.unlink(missing_ok=True)
            _sync(self._folder)

    def _new(self) -> int:
        """Before the state is written its key is there, and a number that was used up by a crash is not used again."""
        held = read(self._folder)
        after = held.get(self._site, Generations()).new()
        while self._file(after.made).exists():
            after = Generations(after.made + 1, after.current, (*after.verifying[:-1], after.made + 1))
        key = keyring.site_key(self._own_root(), self._site, after.made, self._defaults)
        _replace(self._file(after.made), keys.write(key.kid.decode(), key.secret))
        self._write({**held, self._site: after})
        return after.made

    def _sign(self, generation: int) -> None:
        held = read(self._folder)
        self._write({**held, self._site: held.get(self._site, Generations()).sign(generation)})

    def _number(self, kid: str) -> int:
        found = keyring.parse_kid(kid)
        if found is None or found[0] != self._site:
            raise StreamGateError("config_invalid", f"{kid!r} is no key of the site {self._site!r}")
        return found[1]

    def _own_root(self) -> bytes:
        # Looked for first: whoever makes a key has made the root before.
        made = any(keyring.parse_kid(path.stem) for path in self._folder.glob(f"*{SUFFIX}"))
        with contextlib.suppress(FileNotFoundError):
            return _parse_root(read_private(self._root, 200), self._root)
        if made:
            raise StreamGateError(
                "config_invalid",
                f"{self._root} is missing, and {self._folder} holds keys of a root: copy it there, or name it in tokens.root",
            )
        self._root.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _replace(self._root, secrets.token_bytes(keyring.ROOT).hex() + "\n", only_first=True)
        return _parse_root(read_private(self._root, 200), self._root)

    def _file(self, generation: int) -> Path:
        return self._folder / f"{keyring.kid(self._site, generation)}{SUFFIX}"

    def _write(self, sites: dict[str, Generations]) -> None:
        _replace(self._folder / STATE, keyring.write_generations(sites))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._errors():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
            finally:
                os.close(file)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StreamGateError(
                "config_invalid", f"keys in {self._folder}: {os.strerror(error.errno or 0)}"
            ) from error


def read(folder: Path) -> dict[str, Generations]:
    """The generations of all sites that keys in ``folder`` were made for; raises ``config_invalid``. Blocking."""
    try:
        with (folder / STATE).open("rb") as file:
            return keyring.read_generations(file.read(_MAX_STATE).decode())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise StreamGateError("config_invalid", f"{folder / STATE} cannot be read") from error


def read_private(path: Path, most: int) -> bytes:
    """What a file holds that nobody but its owner may read; raises OSError, and ``config_invalid`` where others may."""
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o777
        if mode & 0o077:
            raise StreamGateError("config_invalid", f"key file {path}: others may read it (mode {mode:o}); make it 600")
        return file.read(most)


def state_of(path: Path) -> tuple[int, ...]:
    """What differs as soon as a file does, or the reason why it cannot be looked at."""
    try:
        status = path.stat()
    except OSError as error:
        return (error.errno or 0,)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _parse_root(text: bytes, path: Path) -> bytes:
    try:
        root = bytes.fromhex(text.decode().strip())
    except ValueError:
        root = b""
    if len(root) != keyring.ROOT or keys.published(root):
        raise StreamGateError("config_invalid", f"key file {path}: a root has {keyring.ROOT} random bytes, in hex")
    return root


def _replace(path: Path, text: str, *, only_first: bool = False) -> None:
    """Write a file for its owner alone, whole or not at all; ``only_first``: one that is there stays as it is."""
    aside = path.parent / f".{secrets.token_hex(8)}"
    put: Callable[[Path, Path], None] = os.link if only_first else os.replace
    file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(file, "w") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        with contextlib.suppress(FileExistsError):
            put(aside, path)
        _sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
