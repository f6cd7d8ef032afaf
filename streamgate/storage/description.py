"""``asset.toml``: what a folder's files are to the asset.

::

    title = "Big Buck Bunny"
    gated = true              # only with a playback token
    tags = ["season-1"]       # what else it can be purged by

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

Sound that several sources carry alike, as the rungs of a ladder do, is offered once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from streamgate.errors import StreamGateError

if TYPE_CHECKING:
    from streamgate.access.policies import Policy

MAX_BYTES = 65536
MAX_FILES = 64
MAX_TAGS = 16
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


def parse(data: bytes) -> Description:
    """Read an asset.toml; raises :class:`StreamGateError` ``asset_description`` that names the place."""
    table = _table(data)
    _known("asset.toml", table, {"title", "gated", "tags", "policy", "source", "subtitle"})
    title = table.get("title", "")
    if not isinstance(title, str) or len(title) > 200:
        raise _wrong("title: a text of at most 200 characters")
    sources = tuple(_source(n, item) for n, item in enumerate(_tables(table, "source"), 1))
    subtitles = tuple(_subtitle(n, item) for n, item in enumerate(_tables(table, "subtitle"), 1))
    if not sources:
        raise _wrong("no [[source]]")
    if len(sources) + len(subtitles) > MAX_FILES:
        raise _wrong(f"more than {MAX_FILES} files")
    found, needed = _policy(table), bool(_flag("asset.toml", table, "gated", False))
    return Description(title, sources, subtitles, needed or (found is not None and found.gated), _tags(table), found)


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


def _source(n: int, item: dict[str, Any]) -> SourceEntry:
    where = f"source {n}"
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
