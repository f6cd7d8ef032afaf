"""Keys of playback tokens in a folder: one file each, readable by its owner alone."""

from __future__ import annotations

import contextlib
import os
import secrets
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
    tokens = settings.tokens
    defaults = Defaults(tokens.issuer, (tokens.site,), tokens.require)
    if tokens.keys:
        return load(Path(tokens.keys), defaults)
    return load(settings.server.data_folder / "keys", defaults, make=True)


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
