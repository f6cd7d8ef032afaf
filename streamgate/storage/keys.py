"""Keys of playback tokens in a folder: one file each, readable by its owner alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streamgate.access import keyring, keys
from streamgate.access.keyring import Ring
from streamgate.access.keys import AnyKey, Defaults, SharedKey
from streamgate.core.settings import Settings
from streamgate.errors import StreamGateError
from streamgate.storage import generations
from streamgate.storage.generations import SUFFIX, Workshop, state_of

MAX_BYTES = 16384


def configured(settings: Settings) -> list[AnyKey]:
    """The keys that the settings mean; where they name no folder, those in the data folder, in which one is made."""
    if not settings.tokens.keys:
        workshop(settings).first()
    return load(*place(settings))


def ring(settings: Settings) -> Ring:
    """The root and the generations of its sites' keys, for the auth role; where there are none yet they are made. Blocking.

    Raises ``config_invalid`` for what cannot be read or made.
    """
    place_of_work = workshop(settings)
    if not settings.tokens.keys:
        place_of_work.first()
    return place_of_work.ring()


def workshop(settings: Settings) -> Workshop:
    """Where keys of the settings' site are made and retired."""
    folder, defaults = place(settings)
    root = (
        Path(settings.tokens.root) if settings.tokens.root else settings.server.data_folder / "keys" / generations.ROOT
    )
    return Workshop(folder, root, settings.tokens.site, defaults)


ROOT_OF_ITS_OWN = (
    "nodes that share redis.url need one root of keys, and tokens.root names none: this node's accounts, browsers and tokens"
    " are strangers to the others unless all have a copy of one"
)


def root_of_its_own(settings: Settings) -> bool:
    """Whether this node makes a root for itself, though it shares its state with others, who should have the same."""
    return bool(settings.redis.url) and not settings.tokens.root


def retire(settings: Settings, kid: str) -> None:
    """Remove the keys of this id, whoever made them, and whatever is wrong with them or others.

    A file that holds no key counts by its name. Raises ``config_invalid`` for one that signs, and where there is none.
    """
    folder, defaults = place(settings)
    known: dict[Path, AnyKey] = {}
    try:
        names = {path: path.stem for path in _files(folder)}
        for path in names:
            with contextlib.suppress(StreamGateError, OSError), path.open("rb") as file:
                known[path] = keys.parse(file.read(MAX_BYTES), str(path), defaults)
                names[path] = known[path].kid.decode()
    except OSError as error:
        raise StreamGateError("config_invalid", f"keys in {folder}: {os.strerror(error.errno or 0)}") from error
    files = [path for path, name in names.items() if name == kid]
    if not files:
        raise StreamGateError("config_invalid", f"there is no key {kid!r}")
    signs = _wanted(settings, None)
    if signs not in names.values() and not settings.tokens.signer and any(key.leased for key in known.values()):
        signs = signer(settings, list(known.values())).kid.decode()
    if kid == signs:
        raise StreamGateError("config_invalid", "this key signs; make a new one first")
    workshop(settings).retire(kid, files)


def signer(settings: Settings, known: Sequence[AnyKey], held: Ring | None = None) -> SharedKey:
    """Of ``known`` the one to make tokens with; raises ``config_invalid`` where there is none.

    It is the one that the settings name; else the site's generation that signs, as ``held`` has it (None: its file is read,
    blocking); else the last of ours by file name.
    """
    if (named := chosen(settings, known, held)) is not None:
        return named
    ours = ours_of(known)
    if settings.tokens.signer:
        raise StreamGateError("config_invalid", "tokens.signer: there is no key of this kid")
    if not ours:
        raise StreamGateError("config_invalid", "there is no key to make tokens with")
    return ours[-1]


def chosen(settings: Settings, known: Sequence[AnyKey], held: Ring | None = None) -> SharedKey | None:
    """As :func:`signer`, but None where neither the settings nor the generations name one of ``known``."""
    wanted = _wanted(settings, held)
    return next((key for key in ours_of(known) if key.kid.decode() == wanted), None)


def ours_of(known: Sequence[AnyKey]) -> list[SharedKey]:
    """Those of ``known`` that tokens of ours are made with."""
    return [key for key in known if isinstance(key, SharedKey) and key.leased]


def _wanted(settings: Settings, held: Ring | None) -> str:
    """The kid of the key that should sign; ``{site}.0`` where no generation does."""
    if settings.tokens.signer:
        return settings.tokens.signer
    site = settings.tokens.site
    sites = generations.read(place(settings)[0]) if held is None else held.sites
    return keyring.kid(site, sites.get(site, keyring.Generations()).current)


def place(settings: Settings) -> tuple[Path, Defaults]:
    """The folder of keys that the settings mean, and what holds for all keys in it."""
    tokens = settings.tokens
    folder = Path(tokens.keys) if tokens.keys else settings.server.data_folder / "keys"
    return folder, Defaults(tokens.issuer, (tokens.site,), tokens.require)


@dataclass(frozen=True, slots=True)
class Found:
    """The keys that count now, and what is wrong with files that should hold one."""

    keys: list[AnyKey]
    problems: list[str]


class Folder:
    """A folder of keys that is looked at again and again, and nothing is made in it."""

    def __init__(self, path: Path, defaults: Defaults) -> None:
        self._path = path
        self._defaults = defaults
        self._seen: object = None
        self._known: dict[Path, AnyKey] = {}

    def look(self) -> Found | None:
        """What is in the folder, None where nothing has changed since the last look; blocking, raises nothing.

        A file that cannot be read, or is wrong, counts as it did before. One that is gone has no key, and a folder that is
        gone has none at all.
        """
        try:
            files = _files(self._path)
            # With what says which of them signs: whoever makes tokens wants to hear of that, too.
            seen = {path: state_of(path) for path in files}
            seen |= {path: state_of(path) for path in (self._path / generations.STATE,) if path.exists()}
        except FileNotFoundError:
            files, seen = [], {}
        except OSError as error:
            return self._unchanged(str(error), f"keys in {self._path}: {os.strerror(error.errno or 0)}")
        if seen == self._seen:
            return None
        self._seen = seen
        known: dict[Path, AnyKey] = {}
        problems: list[str] = []
        for path in files:
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
            if _name(key) in {_name(other) for other in known.values()}:
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


def load(folder: Path, defaults: Defaults) -> list[AnyKey]:
    """All keys of ``folder``, by file name.

    Raises ``config_invalid`` for a folder or a file that cannot be read, a file that others may read, a file that is wrong,
    and two keys of one kid and one algorithm.
    """
    try:
        found = [keys.parse(_read(path), str(path), defaults) for path in _files(folder)]
    except OSError as error:
        raise StreamGateError("config_invalid", f"keys in {folder}: {os.strerror(error.errno or 0)}") from error
    if len({_name(key) for key in found}) != len(found):
        raise StreamGateError("config_invalid", f"keys in {folder}: two files have one kid")
    return found


def _name(key: AnyKey) -> tuple[bytes, str]:
    return key.kid, key.algorithm


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX and not path.name.startswith("."))


def _read(path: Path) -> bytes:
    return generations.read_private(path, MAX_BYTES)
