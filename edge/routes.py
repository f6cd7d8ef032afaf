"""The table of URLs below ``/v/``: what each is called, how it looks, and how its answer may be cached.

No part of a URL is ever used as a file name: an asset's id and a rendition's name are looked up, a number is a number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from streamgate.errors import StreamGateError
from streamgate.storage.discovery import PREVIEW

_ASSET = r"(?P<asset>[A-Za-z0-9][A-Za-z0-9._-]{0,63}(?:~preview)?)"
_VIDEO = r"v[a-z0-9]{0,40}-[0-9a-f]{16}"
_AUDIO = r"a[a-z0-9]{0,40}-[0-9a-f]{16}"
_TEXT = r"t[a-z0-9]{0,40}-[0-9a-f]{16}"
_RENDITION = rf"(?P<rendition>{_VIDEO}|{_AUDIO}|{_TEXT})"
_PAIR = rf"(?P<rendition>{_VIDEO}|none)\+(?P<audio>{_AUDIO}|none)"
_NUMBER = r"(?P<number>0|[1-9][0-9]{0,8})"


@dataclass(frozen=True, slots=True)
class Route:
    """A class of URLs. ``immutable``: the name promises the bytes for ever, so that caches need not ask again."""

    name: str
    pattern: re.Pattern[str]
    immutable: bool
    meaning: str


@dataclass(frozen=True, slots=True)
class Target:
    """What a path asks for; ``rendition`` and ``audio`` are "" and ``number`` is -1 where the route has none.

    In muxed routes ``rendition`` is the video's; either may be "none".
    """

    route: Route
    asset: str
    rendition: str = ""
    audio: str = ""
    number: int = -1
    leaf: str = ""


def _route(name: str, leaf: str, immutable: bool, meaning: str) -> Route:
    return Route(name, re.compile(f"/v/{_ASSET}/{leaf}"), immutable, meaning)


ROUTES: tuple[Route, ...] = (
    _route("multivariant", r"main\.m3u8", False, "multivariant playlist, CMAF segments"),
    _route("multivariant_ts", r"main-ts\.m3u8", False, "multivariant playlist, MPEG-TS segments"),
    _route("mpd", r"main\.mpd", False, "MPEG-DASH manifest"),
    _route("media_playlist", rf"{_RENDITION}/index\.m3u8", True, "media playlist"),
    _route("iframe_playlist", rf"{_RENDITION}/iframes\.m3u8", True, "I-frame playlist for trick play"),
    _route("init", rf"{_RENDITION}/init\.mp4", True, "init segment"),
    _route("segment", rf"{_RENDITION}/{_NUMBER}\.m4s", True, "segment, shared by HLS and DASH"),
    _route("keyframe", rf"{_RENDITION}/k{_NUMBER}\.m4s", True, "one keyframe, for trick play"),
    _route("ts_playlist", rf"{_PAIR}/index\.m3u8", True, "media playlist of muxed MPEG-TS"),
    _route("ts_segment", rf"{_PAIR}/{_NUMBER}\.ts", True, "muxed MPEG-TS segment"),
    _route("text_segment", rf"{_RENDITION}/{_NUMBER}\.vtt", True, "subtitles of one segment, for HLS"),
    _route("text", rf"{_RENDITION}/all\.vtt", True, "all subtitles, for DASH"),
)


SEGMENT = next(route for route in ROUTES if route.name == "segment")
TS_SEGMENT = next(route for route in ROUTES if route.name == "ts_segment")
_ID = re.compile(f"/v/{_ASSET}(?:/.*)?")
PLAYLISTS = frozenset(("multivariant", "multivariant_ts", "mpd", "media_playlist", "iframe_playlist", "ts_playlist"))
"""Routes whose answers name others by relative URLs."""


def asset_of(path: str) -> str:
    """The asset that a canonical path below ``/v/`` belongs to, whether or not there is such a route; "" for none."""
    found = _ID.fullmatch(path)
    return found["asset"] if found else ""


def previewed(asset: str) -> str:
    """The asset whose preview this is; "" where it is none."""
    name, mark, _ = asset.partition(PREVIEW)
    return name if mark else ""


def match(path: str, among: Sequence[Route] = ROUTES) -> Target:
    """What a canonical path below ``/v/`` asks for; raises ``not_found`` where it is none of those."""
    for route in among:
        found = route.pattern.fullmatch(path)
        if found:
            parts = found.groupdict()
            number = int(parts.get("number", -1))
            rendition, audio = parts.get("rendition", ""), parts.get("audio", "")
            return Target(route, parts["asset"], rendition, audio, number, path.rpartition("/")[2])
    raise StreamGateError("not_found")
