"""``asset.toml``: what a folder's files are to the asset.

::

    title = "Big Buck Bunny"
    gated = true              # only with a playback token
    tags = ["season-1"]       # what else it can be purged by
    poster = "still.jpg"      # a picture that everybody may see: .jpg, .jpeg, .png, .webp, .avif

    [[source]]
    file = "bbb-1604k.mp4"
    tracks = [1]              # track numbers to take; all of them where absent
    language = "en"           # instead of what the file says
    label = "Stereo"
    default = true            # the audio to start with

    [[subtitle]]
    file = "french.srt"
    language = "fr"
    forced = false

    [policy]                  # whom playback is granted to, see streamgate.access.policies
    kind = "allow"
    accounts = ["ada"]
    preview = 30              # seconds from the beginning that everybody may see

    [preview]                 # or a trailer, which has the keys of a [[source]]
    file = "trailer.mp4"

Sound that several sources carry alike, as the rungs of a ladder do, is offered once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from streamgate.errors import StreamGateError

if TYPE_CHECKING:
    from streamgate.access.policies import Policy

MAX_BYTES = 65536
MAX_FILES = 64
MAX_TAGS = 16
PICTURES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".avif": "image/avif",
}
"""Media types of posters by the suffixes of their files."""
NOWHERE = ("https://nowhere.invalid",)
"""The only origin of an asset of which nobody knows which it has (RFC 2606 section 2)."""
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """One media file of an asset; None means "as the file says"."""

    file: str
    tracks: tuple[int, ...] | None = None
    language: str | None = None
    label: str | None = None
    default: bool | None = None


@dataclass(frozen=True, slots=True)
class SubtitleEntry:
    """One sidecar subtitle file of an asset."""

    file: str
    language: str = "und"
    label: str | None = None
    default: bool = False
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Description:
    """A whole asset.toml."""

    title: str
    sources: tuple[SourceEntry, ...]
    subtitles: tuple[SubtitleEntry, ...] = ()
    gated: bool = False
    tags: tuple[str, ...] = ()
    policy: Policy | None = None
    trailer: SourceEntry | None = None
    poster: str = ""

    def preview(self) -> tuple[Description, float]:
        """What the preview is made of, and how many seconds of that; 0: all. Raises ``asset_not_found`` where there is none."""
        if self.trailer is not None:
            return replace(self, sources=(self.trailer,), subtitles=()), 0.0
        if self.policy is not None and self.policy.preview:
            return self, self.policy.preview
        raise StreamGateError("asset_not_found")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a listing wants to know of an asset.toml: ``preview`` is whether there is one, ``poster`` the leaf of its URL.

    As it is made without arguments: of one that nobody can read.
    """

    gated: bool = True
    tags: tuple[str, ...] = ()
    preview: bool = False
    embed_origins: tuple[str, ...] = NOWHERE
    poster: str = ""


def parse(data: bytes) -> Description:
    """Read an asset.toml; raises :class:`StreamGateError` ``asset_description`` that names the place."""
    table = _table(data)
    _known("asset.toml", table, {"title", "gated", "tags", "poster", "policy", "preview", "source", "subtitle"})
    title = table.get("title", "")
    if not isinstance(title, str) or len(title) > 200:
        raise _wrong("title: a text of at most 200 characters")
    sources = tuple(_source(f"source {n}", item) for n, item in enumerate(_tables(table, "source"), 1))
    subtitles = tuple(_subtitle(n, item) for n, item in enumerate(_tables(table, "subtitle"), 1))
    if not sources:
        raise _wrong("no [[source]]")
    if len(sources) + len(subtitles) > MAX_FILES:
        raise _wrong(f"more than {MAX_FILES} files")
    found, needed = _policy(table), bool(_flag("asset.toml", table, "gated", False))
    gate = needed or (found is not None and found.gated)
    return Description(title, sources, subtitles, gate, _tags(table), found, _trailer(table, found), _poster(table))


def facts(data: bytes) -> Facts:
    """What an asset.toml says, whatever else is wrong in it: what cannot be understood opens nothing; raises ``asset_description``."""
    table = _table(data)
    try:
        given = _tags(table)
    except StreamGateError:
        given = ()
    try:
        found = _policy(table)
    except StreamGateError:
        return Facts(True, given)
    seconds, origins = (found.preview, found.embed_origins) if found is not None else (0.0, ())
    try:
        trailer, poster = _trailer(table, found), _poster(table)
    except StreamGateError:
        return Facts(gated(data), given, embed_origins=origins)
    return Facts(gated(data), given, trailer is not None or seconds > 0, origins, poster_leaf(poster))


def poster_leaf(file: str) -> str:
    """What the poster is called in its URL; "" for none."""
    suffix = PurePosixPath(file).suffix.lower()
    return f"poster{'.jpg' if suffix == '.jpeg' else suffix}" if file else ""


def gated(data: bytes) -> bool:
    """Whether an asset.toml says that the asset is gated, whatever else is wrong in it; raises ``asset_description``."""
    table = _table(data)
    if _flag("asset.toml", table, "gated", False):
        return True
    try:
        found = _policy(table)
    except StreamGateError:  # opening the asset tells what is wrong with it
        return True
    return found is not None and found.gated


def policy(data: bytes) -> Policy | None:
    """The policy of an asset.toml, None where it has none, whatever else is wrong in it; raises ``asset_description``."""
    return _policy(_table(data))


def tags(data: bytes) -> tuple[str, ...]:
    """The tags that an asset.toml gives; none where they are wrong, which opening the asset tells; raises ``asset_description``."""
    table = _table(data)
    try:
        return _tags(table)
    except StreamGateError:
        return ()


def _table(data: bytes) -> dict[str, Any]:
    import tomllib  # here, as a lone file has no description

    if len(data) > MAX_BYTES:
        raise _wrong(f"longer than {MAX_BYTES} bytes")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as e:
        raise _wrong(str(e) or "nested too deeply") from e


def _wrong(detail: str) -> StreamGateError:
    return StreamGateError("asset_description", f"asset.toml: {detail}"[:500])


def _tables(table: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _wrong(f"{key}: write it as [[{key}]]")
    return value


def _policy(table: dict[str, Any]) -> Policy | None:
    if "policy" not in table:
        return None
    from streamgate.access import policies  # here, as most assets have none

    if not isinstance(table["policy"], dict):
        raise _wrong("policy: write it as [policy]")
    return policies.parse(table["policy"])


def _trailer(table: dict[str, Any], found: Policy | None) -> SourceEntry | None:
    if "preview" not in table:
        return None
    if not isinstance(table["preview"], dict):
        raise _wrong("preview: write it as [preview]")
    if found is not None and found.preview:
        raise _wrong("preview: either seconds in [policy] or a trailer in [preview]")
    return _source("preview", table["preview"])


def _poster(table: dict[str, Any]) -> str:
    if "poster" not in table:
        return ""
    name = _file("poster", {"file": table["poster"]})
    if PurePosixPath(name).suffix.lower() not in PICTURES:
        raise _wrong(f"poster: a file of {', '.join(PICTURES)}")
    return name


def _tags(table: dict[str, Any]) -> tuple[str, ...]:
    value = table.get("tags", [])
    if not isinstance(value, list) or len(value) > MAX_TAGS:
        raise _wrong(f"tags: a list of at most {MAX_TAGS}")
    if not all(isinstance(tag, str) and _TAG.fullmatch(tag) for tag in value):
        raise _wrong("tags: each of at most 64 letters, digits, dots, dashes and underscores, a letter or digit first")
    return tuple(dict.fromkeys(value))


def _known(where: str, table: dict[str, Any], names: Iterable[str]) -> None:
    if unknown := sorted(set(table) - set(names)):
        raise _wrong(f"{where}: {unknown[0]!r} is not known; there are {', '.join(sorted(names))}")


def _source(where: str, item: dict[str, Any]) -> SourceEntry:
    _known(where, item, (f.name for f in fields(SourceEntry)))
    tracks = item.get("tracks")
    if tracks is not None:
        if not isinstance(tracks, list) or not all(type(t) is int and 0 < t < 2**32 for t in tracks):
            raise _wrong(f"{where}: tracks: a list of track numbers")
        tracks = tuple(tracks)
    return SourceEntry(
        _file(where, item),
        tracks,
        _language(where, item),
        _text(where, item, "label"),
        _flag(where, item, "default", None),
    )


def _subtitle(n: int, item: dict[str, Any]) -> SubtitleEntry:
    where = f"subtitle {n}"
    _known(where, item, (f.name for f in fields(SubtitleEntry)))
    return SubtitleEntry(
        _file(where, item),
        _language(where, item) or "und",
        _text(where, item, "label"),
        bool(_flag(where, item, "default", False)),
        bool(_flag(where, item, "forced", False)),
    )


def _file(where: str, item: dict[str, Any]) -> str:
    name = item.get("file")
    if not isinstance(name, str) or not name or "\0" in name or "\\" in name:
        raise _wrong(f"{where}: file: the name of a file in this folder")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise _wrong(f"{where}: file: {name!r} leaves this folder")
    return name


def _language(where: str, item: dict[str, Any]) -> str | None:
    value = _text(where, item, "language")
    if value is not None and not _LANGUAGE.fullmatch(value):
        raise _wrong(f"{where}: language: {value!r} is not a BCP 47 tag")
    return value


def _text(where: str, item: dict[str, Any], key: str) -> str | None:
    value = item.get(key)
    if value is not None and (not isinstance(value, str) or len(value) > 100):
        raise _wrong(f"{where}: {key}: a text of at most 100 characters")
    return value


def _flag(where: str, item: dict[str, Any], key: str, absent: bool | None) -> bool | None:
    value = item.get(key, absent)
    if value is not absent and not isinstance(value, bool):
        raise _wrong(f"{where}: {key}: true or false")
    return value
