"""Keys of playback tokens in a folder: one file each, readable by its owner alone."""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from streamgate.access import keys
from streamgate.access.keys import Defaults, SharedKey
from streamgate.core.settings import Settings
from streamgate.errors import StreamGateError

SUFFIX = ".toml"
MAX_BYTES = 16384
_OWN = f"site{SUFFIX}"


def configured(settings: Settings) -> list[SharedKey]:
    """The keys that the settings mean; where they name no folder, those in the data folder, in which one is made."""
    folder, defaults = place(settings)
    return load(folder, defaults, make=not settings.tokens.keys)


def place(settings: Settings) -> tuple[Path, Defaults]:
    """The folder of keys that the settings mean, and what holds for all keys in it."""
    tokens = settings.tokens
    folder = Path(tokens.keys) if tokens.keys else settings.server.data_folder / "keys"
    return folder, Defaults(tokens.issuer, (tokens.site,), tokens.require)


@dataclass(frozen=True, slots=True)
class Found:
    """The keys that count now, and what is wrong with files that should hold one."""

    keys: list[SharedKey]
    problems: list[str]


class Folder:
    """A folder of keys that is looked at again and again, and nothing is made in it."""

    def __init__(self, path: Path, defaults: Defaults) -> None:
        self._path = path
        self._defaults = defaults
        self._seen: object = None
        self._known: dict[Path, SharedKey] = {}

    def look(self) -> Found | None:
        """What is in the folder, None where nothing has changed since the last look; blocking, raises nothing.

        A file that cannot be read, or is wrong, counts as it did before. One that is gone has no key, and a folder that is
        gone has none at all.
        """
        try:
            seen = {path: _state(path) for path in _files(self._path)}
        except FileNotFoundError:
            seen = {}
        except OSError as error:
            return self._unchanged(str(error), f"keys in {self._path}: {os.strerror(error.errno or 0)}")
        if seen == self._seen:
            return None
        self._seen = seen
        known: dict[Path, SharedKey] = {}
        problems: list[str] = []
        for path in seen:
            try:
                key = keys.parse(_read(path), str(path), self._defaults)
            except FileNotFoundError:  # just now
                continue
            except (StreamGateError, OSError) as error:
                problems.append(
                    error.detail if isinstance(error, StreamGateError) else f"key file {path}: {error.strerror}"
                )
                if path not in self._known:
                    continue
                key = self._known[path]
            if key.kid in {other.kid for other in known.values()}:
                problems.append(f"key file {path}: another file has the same kid")
                continue
            known[path] = key
        self._known = known
        return Found(list(known.values()), problems)

    def _unchanged(self, state: str, problem: str) -> Found | None:
        """The keys as they were: the folder does not tell. Once for each reason."""
        if state == self._seen:
            return None
        self._seen = state
        return Found(list(self._known.values()), [problem])


def load(folder: Path, defaults: Defaults, *, make: bool = False) -> list[SharedKey]:
    """All keys of ``folder``, by file name; ``make``: one is made and kept where there is none.

    Raises ``config_invalid`` for a folder or a file that cannot be read or written, a file that others may read, a file
    that is wrong, and two keys of one kid.
    """
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        files = _files(folder)
        if make and not files:
            _make(folder)
            files = _files(folder)
        found = [keys.parse(_read(path), str(path), defaults) for path in files]
    except OSError as error:
        raise StreamGateError("config_invalid", f"keys in {folder}: {os.strerror(error.errno or 0)}") from error
    if len({key.kid for key in found}) != len(found):
        raise StreamGateError("config_invalid", f"keys in {folder}: two files have one kid")
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX and not path.name.startswith("."))


def _state(path: Path) -> tuple[int, ...]:
    """What differs as soon as a file does, or the reason why it cannot be looked at."""
    try:
        status = path.stat()
    except OSError as error:
        return (error.errno or 0,)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o777
        if mode & 0o077:
            raise StreamGateError("config_invalid", f"key file {path}: others may read it (mode {mode:o}); make it 600")
        return file.read(MAX_BYTES)


def _make(folder: Path) -> None:
    """Write a fresh key. Of several processes that do so at once one wins, and all use its key."""
    aside = folder / f".{secrets.token_hex(8)}"
    file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(file, "w") as out:
            out.write(keys.write(f"site-{secrets.token_hex(4)}", secrets.token_bytes(keys.SECRET)))
            out.flush()
            os.fsync(out.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(aside, folder / _OWN)
    finally:
        aside.unlink()
