"""One open asset and one that needs a token, and where a node finds the key of its tokens."""

from __future__ import annotations

from pathlib import Path

from streamgate.access import keys
from streamgate.access.keys import SharedKey
from tests.media_factory import Audio, Video, make

KEY = SharedKey(b"site-1", bytes(range(32)), "streamgate", ("local",), ("iss", "exp", "cti", "aud"))
DESCRIBED = 'gated = true\n[[source]]\nfile = "film.mp4"\n'


def assets(root: Path) -> Path:
    """``free`` and ``gated``, the same film, in the folder ``root``."""
    made = make(root / "free.mp4", Video(size=(64, 36), gop=25), Audio(), seconds=9)
    (root / "gated").mkdir()
    (root / "gated/film.mp4").write_bytes(made.read_bytes())
    (root / "gated/asset.toml").write_text(DESCRIBED)
    return root


def key_folder(data: Path) -> Path:
    """A folder in ``data`` that holds the key, as the setting tokens.keys wants it."""
    made = data / "keys"
    made.mkdir(mode=0o700)
    file = made / "site.toml"
    file.touch(0o600)
    file.write_text(keys.write(KEY.kid.decode(), KEY.secret))
    return made
