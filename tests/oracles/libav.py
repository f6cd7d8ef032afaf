"""Reading media back with libav, the oracle of the packager."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from hashlib import md5
from pathlib import Path

import av


@dataclass(frozen=True)
class Packet:
    """One packet: times in ticks of its stream, and what its payload is."""

    dts: int
    pts: int
    digest: str
    key: bool


# Edits are applied as one offset a track, as the timeline contract says; libav's other way drops packets.
_OFFSETS_ONLY = {"advanced_editlist": "0"}


def packets(source: Path | bytes, track: int | None = None, *, payload: bool = True) -> list[Packet]:
    """The packets of one track (by its id; the only one where None), in decode order."""
    file = str(source) if isinstance(source, Path) else io.BytesIO(source)
    options = _OFFSETS_ONLY if not isinstance(source, Path) or source.suffix in (".mp4", ".mov", ".m4a") else {}
    with av.open(file, "r", options=options) as container:
        stream = next(s for s in container.streams if track is None or s.id == track)
        found = []
        for packet in container.demux(stream):
            if packet.size == 0 or packet.dts is None or packet.pts is None:
                continue
            found.append(Packet(packet.dts, packet.pts, md5(bytes(packet)).hexdigest(), packet.is_keyframe))
    return found


def shape(source: Path | bytes) -> tuple[tuple[int, int], float, tuple[int, int]]:
    """How the first video is to be shown: its size as coded, degrees to turn it counterclockwise, width and height of a pixel."""
    with av.open(str(source) if isinstance(source, Path) else io.BytesIO(source), "r") as container:
        stream = container.streams.video[0]
        frame = next(container.decode(stream))
        pixel = stream.sample_aspect_ratio or Fraction(1)
        return (frame.width, frame.height), frame.rotation, (pixel.numerator, pixel.denominator)


def pictures(data: bytes) -> list[tuple[int, str]]:
    """Decoded frames of the first video stream, in order of presentation: (pts in ticks, digest of the planes)."""
    with av.open(io.BytesIO(data), "r", options=_OFFSETS_ONLY) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        return [(frame.pts or 0, planes(frame)) for frame in container.decode(stream)]


def file_pictures(path: Path, track: int) -> list[tuple[int, str]]:
    """Like :func:`pictures`, of one track of a file."""
    with av.open(str(path), options=_OFFSETS_ONLY) as container:
        stream = next(s for s in container.streams.video if s.id == track)
        stream.thread_count = 1
        return [(frame.pts or 0, planes(frame)) for frame in container.decode(stream)]


def planes(frame: av.VideoFrame) -> str:
    """A digest of a decoded picture."""
    digest = md5()
    for plane, rows in zip(frame.planes, _rows(frame), strict=True):
        data = memoryview(plane)
        for y in range(rows):
            digest.update(
                data[y * plane.line_size : y * plane.line_size + plane.width * frame.format.components[0].bits // 8]
            )
    return digest.hexdigest()


def _rows(frame: av.VideoFrame) -> list[int]:
    return [plane.height for plane in frame.planes]


def complaints(data: bytes) -> list[str]:
    """What libav logs (warnings and worse) when it decodes everything in ``data``."""
    av.logging.set_level(av.logging.WARNING)
    try:
        with av.logging.Capture() as logs, av.open(io.BytesIO(data), "r") as container:
            for stream in container.streams:
                if hasattr(stream, "thread_count"):
                    stream.thread_count = 1
            for _ in container.decode():
                pass
        return [f"{name}: {message.strip()}" for _, name, message in logs]
    finally:
        av.logging.set_level(None)
