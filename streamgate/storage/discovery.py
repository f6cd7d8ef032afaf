"""Which assets a folder holds.

- A media file is an asset, with its sidecar subtitles ``name.vtt``, ``name.srt``, ``name.LANG.vtt``.
- A folder with an ``asset.toml`` is an asset; it may say that the asset is gated. A lone media file is open to all.
- Anything else is passed over, and so is every hidden entry.

**The rule of ids**: the file's name without its suffix (a folder's whole name); letters with accents lose them;
every run of characters other than ``A-Z a-z 0-9 . _ -`` becomes one ``-``; leading characters that are no letter or digit
and trailing ``-`` go; at most 64 characters stay. A name of which nothing stays becomes ``asset-`` and a digest of it.
Of two entries with one id the first by name is kept, and a finding names the other.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

from streamgate.errors import Finding, StreamGateError
from streamgate.storage import description

MEDIA_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".m4a", ".mov", ".3gp", ".f4v", ".cmfv", ".cmfa", ".mkv", ".mka", ".webm", ".ts", ".m2ts", ".mts")
)
SUBTITLE_SUFFIXES = frozenset((".vtt", ".srt"))
DESCRIPTION = "asset.toml"
MAX_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class AssetRef:
    """An asset that was found: its id, a title for people, the file or folder it is, and whether it needs a token."""

    id: str
    title: str
    path: Path
    findings: tuple[Finding, ...] = field(default=())
    gated: bool = False

    @property
    def folder(self) -> Path:
        """The folder its file names are relative to."""
        return self.path if self.path.is_dir() else self.path.parent


def asset_id(name: str) -> str:
    """The id of a file (without suffix) or folder called ``name``, by the rule above."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    made = re.sub(r"[^A-Za-z0-9._-]+", "-", plain)
    made = re.sub(r"^[^A-Za-z0-9]+", "", made)[:64].rstrip("-")
    return made or "asset-" + blake2b(name.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()


class Gates:
    """Which folders' asset.toml say that the asset is gated; each is read again when it has changed."""

    def __init__(self) -> None:
        self._read: dict[Path, tuple[tuple[int, int, int], bool]] = {}

    def gated(self, folder: Path) -> bool:
        """What the asset.toml says; one that cannot be read changes nothing, and opens nothing that was not open."""
        path = folder / DESCRIPTION
        known = self._read.get(folder)
        try:
            told = path.stat()
            signature = (told.st_ino, told.st_size, told.st_mtime_ns)
            if known is None or known[0] != signature:
                with path.open("rb") as file:
                    data = file.read(description.MAX_BYTES + 1)
                known = self._read[folder] = (signature, description.gated(data))
        except (OSError, StreamGateError):
            pass
        return known is None or known[1]

    def keep(self, folders: Iterable[Path]) -> None:
        """Forget all other folders."""
        for gone in self._read.keys() - set(folders):
            del self._read[gone]


def discover(root: Path, gates: Gates | None = None) -> list[AssetRef]:
    """All assets of ``root``, by name: a folder of assets, one asset's folder, or one media file.

    ``gates`` spares reading every asset.toml again. Raises :class:`StreamGateError` ``source_not_found`` or ``source_unreadable``.
    """
    try:
        if not root.exists():
            raise StreamGateError("source_not_found", f"{root}: no such file or folder")
        gates = gates or Gates()
        if root.is_file() or (root / DESCRIPTION).is_file():
            return [_ref(root.resolve(), gates)]
        entries = []
        for entry in root.iterdir():
            if not entry.name.startswith(".") and _is_asset(entry):
                entries.append(entry)
                if len(entries) > MAX_ENTRIES:
                    raise StreamGateError("source_too_complex", f"{root}: more than {MAX_ENTRIES} assets")
    except OSError as e:
        raise StreamGateError("source_unreadable", f"{root}: {e.strerror}") from e
    found: dict[str, AssetRef] = {}
    for entry in sorted(entries):
        ref = _ref(entry, gates)
        kept = found.get(ref.id)
        if kept is None:
            found[ref.id] = ref
        else:
            detail = f"{entry.name} would have the id {ref.id!r} too, which {kept.path.name} has; it is not served"
            finding = Finding("asset_id_collision", entry.name, detail)
            found[ref.id] = replace(kept, findings=(*kept.findings, finding))
    gates.keep(ref.path for ref in found.values())
    return list(found.values())


def sidecars(media: Path) -> list[tuple[Path, str]]:
    """The subtitle files beside ``media``, by name, each with the language that its name tells ("und" where none)."""
    found = []
    for path in sorted(media.parent.iterdir()):
        if path.suffix.lower() not in SUBTITLE_SUFFIXES or not path.is_file():
            continue
        if path.stem == media.stem:
            found.append((path, "und"))
        elif path.stem.startswith(media.stem + "."):
            language = path.stem[len(media.stem) + 1 :]
            if re.fullmatch(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*", language):
                found.append((path, language))
    return found


def _is_asset(entry: Path) -> bool:
    if entry.is_dir():
        return (entry / DESCRIPTION).is_file()
    return entry.suffix.lower() in MEDIA_SUFFIXES and entry.is_file()


def _ref(path: Path, gates: Gates) -> AssetRef:
    folder = path.is_dir()
    name = path.name if folder else path.stem
    return AssetRef(asset_id(name), name, path, gated=folder and gates.gated(path))
