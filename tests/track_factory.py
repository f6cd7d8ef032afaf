"""Tracks and presentations out of thin air: sample tables without media, for tests of timelines and manifests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from streamgate.media.codecs import Codec
from streamgate.media.presentation import TrackInput
from streamgate.native.samples import Track

MOVIE_TIMESCALE = 1000


def box(kind: str) -> bytes:
    """A sample entry box that says nothing but what it is."""
    return (16).to_bytes(4, "big") + kind.encode() + bytes(8)


def h264(width: int = 640, height: int = 360, **others: Any) -> Codec:
    told: dict[str, Any] = {
        "kind": "video",
        "family": "h264",
        "string": "avc1.64001E",
        "entry": box("avc1"),
        "config": AVCC,
    }
    return Codec(**(told | {"width": width, "height": height} | others))


def aac(channels: int = 2, sample_rate: int = 48000, **others: Any) -> Codec:
    told: dict[str, Any] = {
        "kind": "audio",
        "family": "aac",
        "string": "mp4a.40.2",
        "entry": box("mp4a"),
        "config": b"\x11\x90",
    }
    return Codec(**(told | {"channels": channels, "sample_rate": sample_rate} | others))


# AVCDecoderConfigurationRecord with one parameter set of each kind, of two bytes.
AVCC = bytes.fromhex("0164001effe100026742010002 6842".replace(" ", ""))


def video_track(
    gops: Sequence[int] = (25,) * 10,
    *,
    ticks: int | Sequence[int] = 512,
    timescale: int = 12800,
    bframes: int = 2,
    closed: bool = True,
    edited: bool = True,
    begins: int = 0,
    **others: Any,
) -> Track:
    """GOPs of so many pictures, one sync sample each; ``closed``: or with B-frames that lead across their keyframes.

    ``ticks``: how long each picture lasts (a number, or one each). ``edited``: an edit makes the first pts 0.
    ``begins``: the media time of the first picture.
    """
    order: list[int] = []
    syncs = []
    first = 0
    for length in gops:
        syncs.append(first)
        shown = list(range(first, first + length))
        if closed or not order:
            order.append(shown.pop(0))
        else:  # the keyframe is decoded first and shown behind the pictures that lead to it
            order.append(shown.pop(min(bframes, length - 1)))
            lead = min(bframes, length - 1)
            order += shown[:lead]
            shown = shown[lead:]
        while shown:
            group, shown = shown[: bframes + 1], shown[bframes + 1 :]
            order += [group[-1], *group[:-1]]
        first += length
    lasts = np.full(first, ticks) if isinstance(ticks, int) else np.asarray(ticks)
    starts = np.concatenate(([0], np.cumsum(lasts)))
    shown_at, decoded_at = starts[np.array(order)], starts[:-1]
    delay = int((decoded_at - shown_at).max())
    edits = [(0, begins + delay, 1 << 16)] if edited else []
    columns: dict[str, Any] = {
        "timescale": timescale,
        "entries": [box("avc1")],
        "sizes": 100 + (np.arange(first) * 7919 % 1000) + 4000 * np.isin(np.arange(first), syncs),
        "deltas": lasts,
        "offsets": shown_at - decoded_at + delay,
        "syncs": syncs,
        "positions": np.arange(first) * 8000,
        "first_dts": begins,
        "width": 640.0,
        "height": 360.0,
        "edits": edits,
    }
    return Track.from_samples(**(columns | others))


def audio_track(
    frames: int = 470, *, ticks: int = 1024, timescale: int = 48000, priming: int = 0, begins: int = 0, **others: Any
) -> Track:
    """Frames of equal length; an edit skips ``priming`` ticks."""
    columns: dict[str, Any] = {
        "id": 2,
        "handler": "soun",
        "timescale": timescale,
        "entries": [box("mp4a")],
        "sizes": 150 + np.arange(frames) * 31 % 100,
        "deltas": [ticks] * frames,
        "positions": 10_000_000 + np.arange(frames) * 500,
        "first_dts": begins,
        "edits": [(0, priming, 1 << 16)] if priming else [],
    }
    return Track.from_samples(**(columns | others))


def given(track: Track, codec: Codec | None = None, **others: Any) -> TrackInput:
    """``track`` as an input, H.264 or AAC unless said otherwise."""
    codec = codec or (h264() if track.handler == "vide" else aac())
    told: dict[str, Any] = {
        "source": 0,
        "identity": b"source",
        "track": track,
        "codec": codec,
        "language": "und",
        "label": "",
        "default": False,
        "movie_timescale": MOVIE_TIMESCALE,
    }
    return TrackInput(**(told | others))
