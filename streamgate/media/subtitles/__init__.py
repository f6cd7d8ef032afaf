"""Subtitles: WebVTT, SubRip and timed text tracks in, WebVTT out."""

from __future__ import annotations

from .cue import MAX_BYTES, MAX_CUES, Cue
from .srt import parse_srt
from .tx3g import parse_tx3g, parse_wvtt
from .vtt import parse_vtt, write_segment, write_whole

__all__ = [
    "MAX_BYTES",
    "MAX_CUES",
    "Cue",
    "parse_srt",
    "parse_tx3g",
    "parse_vtt",
    "parse_wvtt",
    "write_segment",
    "write_whole",
]
