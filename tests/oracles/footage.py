"""The files that the oracles look at: generated ones by name, and the real ones of STREAMGATE_MEDIA."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from tests.media_factory import Audio, Video, make, widen, write_vtt
from tests.oracles import shapes

FRAGMENTED = "+frag_keyframe+empty_moov+default_base_moof"


def _wide(path: Path) -> None:
    last = make(path.with_name("last-" + path.name), flags="")
    widen(last, path)
    last.unlink()


def _with_sidecar(path: Path) -> None:
    make(path)
    write_vtt(path.with_suffix(".fra.vtt"), "fra", 6)


GENERATED: dict[str, Callable[[Path], object]] = {
    "b-frames.mp4": lambda p: make(p, Video(bframes=3)),
    "closed-gop.mp4": lambda p: make(p, Video(gop=50, bframes=0), seconds=9),
    "open-gop.mp4": lambda p: make(p, Video(closed=False, gop=30)),
    "23.976.mp4": lambda p: make(p, Video(fps=Fraction(24000, 1001), gop=48), seconds=9),
    "29.97.mp4": lambda p: make(p, Video(fps=Fraction(30000, 1001), gop=60), seconds=9),
    "59.94.mp4": lambda p: make(p, Video(fps=Fraction(60000, 1001), gop=120), seconds=9),
    "variable-rate.mp4": lambda p: make(p, Video(variable=True)),
    "late-audio.mp4": lambda p: make(p, Video(), Audio(start=Fraction(2, 5))),
    "late-video.mp4": lambda p: make(p, Video(start=Fraction(2, 5)), Audio()),
    "no-edit-list.mp4": lambda p: make(p, Video(), Audio(), use_editlist="0"),
    "64-bit.mp4": _wide,
    "moov-last.mp4": lambda p: make(p, flags=""),
    "fragmented.mp4": lambda p: make(p, flags=FRAGMENTED),
    "fragmented-sidx.mp4": lambda p: make(p, flags="+dash+frag_keyframe+empty_moov+global_sidx"),
    "fragmented-delayed.mp4": lambda p: make(p, flags="+frag_keyframe+delay_moov+default_base_moof"),
    "surround.mp4": lambda p: make(p, Video(), Audio(layout="5.1")),
    "mono-8k.mp4": lambda p: make(p, Video(), Audio(rate=8000, layout="mono")),
    "no-audio.mp4": lambda p: make(p, Video(), None),
    "no-video.mp4": lambda p: make(p, None, Audio()),
    "longer-audio.mp4": lambda p: make(p, Video(), Audio(), seconds=5, audio_seconds=14),
    "shorter-audio.mp4": lambda p: make(p, Video(), Audio(), seconds=9, audio_seconds=3),
    "languages.mp4": lambda p: make(p, Video(), [Audio(), Audio(language="fra", pitch=660)]),
    "sidecar.mp4": _with_sidecar,
    "turned.mp4": shapes.turned,
    "wide-pixels.mp4": shapes.wide_pixels,
}
CODECS: dict[str, Callable[[Path], object]] = {
    "hevc.mp4": lambda p: make(
        p, Video(codec="libx265", options={"x265-params": "keyint=25:log-level=none", "preset": "ultrafast"})
    ),
    "av1.mp4": lambda p: make(p, Video(codec="libsvtav1", bframes=0, options={"preset": "12"}), Audio(codec="libopus")),
    "vp9.mp4": lambda p: make(
        p, Video(codec="libvpx-vp9", bframes=0, options={"deadline": "realtime", "cpu-used": "8"}), Audio(codec="flac")
    ),
    "opus.mp4": lambda p: make(p, Video(), Audio(codec="libopus")),
    "flac.mp4": lambda p: make(p, Video(), Audio(codec="flac")),
    "ac3.mp4": lambda p: make(p, Video(), Audio(codec="ac3", bitrate=192_000)),
    "eac3.mp4": lambda p: make(p, Video(), Audio(codec="eac3", bitrate=192_000)),
    "mp3.mp4": lambda p: make(p, Video(), Audio(codec="libmp3lame")),
    "aac-and-eac3.mp4": lambda p: make(p, Video(), [Audio(), Audio(codec="eac3", bitrate=192_000)]),
}
OTHER_CONTAINERS: dict[str, Callable[[Path], object]] = {
    "matroska.mkv": lambda p: make(p),
    "webm.webm": lambda p: make(
        p,
        Video(codec="libvpx-vp9", bframes=0, options={"deadline": "realtime", "cpu-used": "8"}),
        Audio(codec="libopus"),
    ),
    "transport.ts": lambda p: make(p),
}


def real(*suffixes: str) -> list[str]:
    """Names of the real files with one of ``suffixes``; none where STREAMGATE_MEDIA names no folder."""
    folder = os.environ.get("STREAMGATE_MEDIA")
    return sorted(p.name for p in Path(folder).iterdir() if p.suffix in suffixes) if folder else []


def obtain(name: str, folder: Path) -> Path:
    """The file called ``name``: real, or made once in ``folder``."""
    made = {**GENERATED, **CODECS, **OTHER_CONTAINERS}
    if name not in made:
        return Path(os.environ["STREAMGATE_MEDIA"]) / name
    path = folder / name
    if not path.exists():
        made[name](path)
    return path
