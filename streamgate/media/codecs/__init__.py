"""Codecs of passthrough tracks: from a sample entry to the RFC 6381 string, the clean entry and what manifests need.

:func:`describe` is the way in; each family has its module. Strings and entries change nothing about the samples.
"""

from __future__ import annotations

from streamgate.errors import Finding, StreamGateError

from . import aac, av1, dolby, h264, hevc, vp9, xiph
from .bits import malformed
from .codec import Codec
from .entry import AudioEntry, VisualEntry, fourcc

__all__ = ["Codec", "describe", "wants_first_sample"]

_VIDEO = {
    "avc1": h264.describe,
    "avc3": h264.describe,
    "hvc1": hevc.describe,
    "hev1": hevc.describe,
    "av01": av1.describe,
    "vp09": vp9.describe,
}
# 'ms\0U' is how QuickTime files made by Windows programs name MP3: WAVE format tag 0x55.
_MPEG_AUDIO = {"mp4a", ".mp3", "ms\x00U"}
_AUDIO = {
    "Opus": xiph.describe_opus,
    "fLaC": xiph.describe_flac,
    "ac-3": dolby.describe_ac3,
    "ec-3": dolby.describe_eac3,
}
_TEXT = {"tx3g", "wvtt", "stpp"}
_ENCRYPTED = {"encv", "enca", "enct", "encs", "drmi", "drms"}

_KINDS = {
    "vide": "video",
    "soun": "audio",
    "text": "text",
    "sbtl": "text",
    "subt": "text",
    "subp": "text",
    "clcp": "text",
}


def describe(entry: bytes, *, handler: str, first_sample: bytes = b"", timescale: int = 0, delta: int = 0) -> Codec:
    """What the track with this sample entry box is.

    ``entry`` is one whole box of ``stsd``, header included; ``handler`` the track's handler type
    ('vide', 'soun', 'text', …). ``first_sample`` is the beginning of the first sample: :func:`wants_first_sample` tells
    how much of it helps.
    ``timescale`` and ``delta`` (ticks of the first sample) help to find SBR that an AAC track does not signal.

    Raises ``codec_unsupported``, ``source_encrypted`` or ``source_malformed``.
    """
    kind = fourcc(entry)
    codec = _describe(kind, entry, first_sample, timescale, delta)
    if codec.kind != _KINDS.get(handler):
        raise malformed(f"a track of type {handler!r} has a sample entry {kind!r}")
    return codec


def _describe(kind: str, entry: bytes, first_sample: bytes, timescale: int, delta: int) -> Codec:
    if kind in _VIDEO:
        return _VIDEO[kind](kind, VisualEntry.parse(entry), first_sample)
    if kind in _MPEG_AUDIO:
        return aac.describe(kind, AudioEntry.parse(entry), first_sample, timescale, delta)
    if kind in _AUDIO:
        return _AUDIO[kind](AudioEntry.parse(entry))
    if kind in _TEXT:
        return _text(kind, entry)
    if kind in _ENCRYPTED:
        raise StreamGateError("source_encrypted", f"the sample entry is {kind!r}")
    raise StreamGateError("codec_unsupported", f"there is no place in HLS or DASH for {kind!r}")


def _text(kind: str, entry: bytes) -> Codec:
    problem = None
    if kind == "stpp":
        problem = Finding("codec_unsupported", kind, "TTML subtitles are not turned into WebVTT")
    return Codec(kind="text", family=kind, string=kind, entry=entry, playable=problem is None, problem=problem)


def wants_first_sample(entry: bytes) -> int:
    """How many bytes of the first sample :func:`describe` can use (0: none); raises what :func:`describe` raises."""
    kind = fourcc(entry)
    if kind in ("avc1", "avc3"):
        return h264.wants_first_sample(kind, VisualEntry.parse(entry))
    if kind in ("hvc1", "hev1"):
        return hevc.wants_first_sample(kind, VisualEntry.parse(entry))
    if kind == "av01":
        return av1.wants_first_sample(kind, VisualEntry.parse(entry))
    if kind in _MPEG_AUDIO:
        return aac.wants_first_sample(kind, AudioEntry.parse(entry))
    return 0
