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
from streamgate.storage.description import Facts
from streamgate.storage.objects.store import ObjectInfo

MEDIA_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".m4a", ".mov", ".3gp", ".f4v", ".cmfv", ".cmfa", ".mkv", ".mka", ".webm", ".ts", ".m2ts", ".mts")
)
SUBTITLE_SUFFIXES = frozenset((".vtt", ".srt"))
DESCRIPTION = "asset.toml"
PREVIEW = "~preview"
MAX_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class AssetRef:
    """An asset that was found: its id, a title for people, the file or folder it is, whether it needs a token, its tags.

    In a store ``path`` is its key or what the keys of its ``files`` begin with. ``preview``: it has one, which is an asset
    of its own: see :func:`with_previews`. ``embed_origins``: where its player may be; all where empty.
    ``poster``: the leaf of its poster's URL.
    """

    id: str
    title: str
    path: Path
    findings: tuple[Finding, ...] = field(default=())
    gated: bool = False
    files: tuple[ObjectInfo, ...] = ()
    tags: tuple[str, ...] = ()
    preview: bool = False
    preview_of: str = ""
    embed_origins: tuple[str, ...] = ()
    poster: str = ""

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


def preview_id(asset: str) -> str:
    """The id of an asset's preview, which no asset of its own can have."""
    return asset + PREVIEW


def with_previews(refs: Iterable[AssetRef]) -> list[AssetRef]:
    """``refs``, and behind each that has one its preview: open to all, whatever the asset is."""
    found = []
    for ref in refs:
        found.append(ref)
        if ref.preview:
            found.append(
                replace(
                    ref, id=preview_id(ref.id), gated=False, findings=(), preview=False, preview_of=ref.id, poster=""
                )
            )
    return found


class Gates:
    """What folders' asset.toml say of their assets; each is read again when it has changed."""

    def __init__(self) -> None:
        self._read: dict[Path, tuple[tuple[int, int, int], Facts]] = {}

    def facts(self, folder: Path) -> Facts:
        """What the asset.toml says; one that cannot be read changes nothing, and opens nothing that was not open."""
        path = folder / DESCRIPTION
        known = self._read.get(folder)
        try:
            told = path.stat()
            signature = (told.st_ino, told.st_size, told.st_mtime_ns)
            if known is None or known[0] != signature:
                with path.open("rb") as file:
                    data = file.read(description.MAX_BYTES + 1)
                known = self._read[folder] = (signature, description.facts(data))
        except (OSError, StreamGateError):
            pass
        return known[1] if known is not None else Facts()

    def gated(self, folder: Path) -> bool:
        """Whether it says that the asset is gated."""
        return self.facts(folder).gated

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
    found = distinct([_ref(entry, gates) for entry in sorted(entries)])
    gates.keep(ref.path for ref in found)
    return found


def distinct(refs: Iterable[AssetRef]) -> list[AssetRef]:
    """``refs`` without those whose id an earlier one has, which then has a finding that names them."""
    found: dict[str, AssetRef] = {}
    for ref in refs:
        kept = found.get(ref.id)
        if kept is None:
            found[ref.id] = ref
        else:
            detail = f"{ref.path.name} would have the id {ref.id!r} too, which {kept.path.name} has; it is not served"
            finding = Finding("asset_id_collision", ref.path.name, detail)
            found[ref.id] = replace(kept, findings=(*kept.findings, finding))
    return list(found.values())


def of_objects(objects: Iterable[ObjectInfo]) -> list[AssetRef]:
    """The assets of a store, by name, by the same rules; all of them gated that have an asset.toml, which is yet to be read.

    Raises ``source_too_complex`` where there are too many.
    """
    folders: dict[str, list[ObjectInfo]] = {}
    alone: list[ObjectInfo] = []
    for each in objects:
        folder, slash, _ = each.key.partition("/")
        if not slash:
            alone.append(each)
        elif not folder.startswith("."):
            folders.setdefault(folder, []).append(each)
    if any(each.key == DESCRIPTION for each in alone):
        # The place is one asset's.
        return [AssetRef("asset", "asset", Path(), gated=True, files=tuple(alone))]
    refs = []
    for name, files in folders.items():
        if any(each.key == f"{name}/{DESCRIPTION}" for each in files):
            refs.append(AssetRef(asset_id(name), name, Path(name), gated=True, files=tuple(files)))
    subtitles: dict[str, list[ObjectInfo]] = {}
    for each in alone:
        path = Path(each.key)
        if path.suffix.lower() in SUBTITLE_SUFFIXES:
            for stem in {path.stem, path.stem.rpartition(".")[0]}:
                subtitles.setdefault(stem, []).append(each)
    for each in alone:
        path = Path(each.key)
        if path.suffix.lower() in MEDIA_SUFFIXES and not path.name.startswith("."):
            maybe = subtitles.get(path.stem, [])
            beside = [other for other in maybe if sidecar_language(path, Path(other.key)) is not None]
            refs.append(AssetRef(asset_id(path.stem), path.stem, path, files=(each, *beside)))
    if len(refs) > MAX_ENTRIES:
        raise StreamGateError("source_too_complex", f"more than {MAX_ENTRIES} assets")
    return distinct(sorted(refs, key=lambda ref: ref.path))


def sidecars(media: Path) -> list[tuple[Path, str]]:
    """The subtitle files beside ``media``, by name, each with the language that its name tells ("und" where none)."""
    beside = [(path, sidecar_language(media, path)) for path in sorted(media.parent.iterdir())]
    return [(path, language) for path, language in beside if language is not None and path.is_file()]


def sidecar_language(media: Path, path: Path) -> str | None:
    """The language ("und" where its name tells none) of ``path``, where that are subtitles of ``media``."""
    if path.suffix.lower() not in SUBTITLE_SUFFIXES:
        return None
    if path.stem == media.stem:
        return "und"
    language = path.stem.removeprefix(media.stem + ".")
    return language if language != path.stem and re.fullmatch(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*", language) else None


def _is_asset(entry: Path) -> bool:
    if entry.is_dir():
        return (entry / DESCRIPTION).is_file()
    return entry.suffix.lower() in MEDIA_SUFFIXES and entry.is_file()


def _ref(path: Path, gates: Gates) -> AssetRef:
    folder = path.is_dir()
    name = path.name if folder else path.stem
    ref = AssetRef(asset_id(name), name, path)
    return described(ref, gates.facts(path)) if folder else ref


def described(ref: AssetRef, facts: Facts) -> AssetRef:
    """``ref`` with what its asset.toml says."""
    return replace(
        ref,
        gated=facts.gated,
        tags=facts.tags,
        preview=facts.preview,
        embed_origins=facts.embed_origins,
        poster=facts.poster,
    )
