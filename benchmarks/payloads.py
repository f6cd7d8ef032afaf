"""Assets whose segments have an exact size, so that ours and its peers send the same bytes; kept beside the footage.

Each segment is one real H.264 keyframe with filler data (ITU-T H.264 section 7.3.2.7), or noise, up to the wanted size. The edge
serves such a title as any other: nothing of ours knows that it is a benchmark's. Its peers get what ``streamgate
package`` writes of it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from benchmarks import footage
from streamgate.media.renditions import Rendition
from streamgate.storage import static
from streamgate.storage.assets import Asset, discover, open_asset

SEGMENT_S = 4
_START_CODE = b"\0\0\0\1"
_LEAST = 1024  # bytes of a segment: its boxes and the smallest picture must fit


@dataclass(frozen=True)
class Payload:
    """One title: the folder that ours serves, the folder that others serve, and the paths of its segments in both."""

    assets: Path
    root: Path
    asset: str
    paths: tuple[str, ...]
    sizes: tuple[int, ...]


def exact(size: int, count: int, *, noise: bool = False) -> Payload:
    """A title of ``count`` segments of ``size`` bytes each; with ``noise`` they cannot be compressed, as media cannot."""
    if size < _LEAST:
        raise ValueError(f"a segment has at least {_LEAST} bytes")
    name = f"payload-{size}x{count}{'-noise' if noise else ''}"
    made = served(name, lambda target: _write(target, size, count, noise))
    if set(made.sizes) != {size} or len(made.sizes) != count:
        raise RuntimeError(f"segments of {sorted(set(made.sizes))} bytes instead of {size}")
    return made


def of_title(title: Path, kind: str) -> Payload:
    """The segments of a title's first rendition of ``kind``, ``video`` or ``audio``."""
    return served(title.stem, lambda target: os.link(title, target), kind)


def served(name: str, make: Callable[[Path], None], kind: str = "video") -> Payload:
    """The title ``name``, made once, with its static twin, which is written anew where names of renditions have changed."""
    base = footage.cache().parent / "payloads" / name
    assets, root = base / "assets", base / "root"
    file = assets / f"{name}.mp4"
    if not file.exists():
        assets.mkdir(parents=True, exist_ok=True)
        aside = base / "part.mp4"
        aside.unlink(missing_ok=True)
        make(aside)
        aside.rename(file)
    asset = open_asset(discover(file)[0])
    twin = root / "v" / asset.id
    rendition = _rendition(asset, kind)
    if not (twin / rendition.name).is_dir():
        shutil.rmtree(root, ignore_errors=True)
        part = base / "part"
        shutil.rmtree(part, ignore_errors=True)
        static.write(asset, part / "v" / asset.id)
        part.rename(root)
    prefix = f"/v/{asset.id}/{rendition.name}"
    sizes = tuple(rendition.segment(n).size for n in range(rendition.segments))
    return Payload(assets, root, asset.id, tuple(f"{prefix}/{n}.m4s" for n in range(rendition.segments)), sizes)


def _rendition(asset: Asset, kind: str) -> Rendition:
    found: tuple[Rendition, ...] = tuple(getattr(asset.presentation, kind))
    if not found:
        raise RuntimeError(f"{asset.id} has no {kind}")
    return found[0]


def _write(target: Path, size: int, count: int, noise: bool) -> None:
    """Write the title; what a segment's boxes take is found with a short one."""
    trial = target.with_suffix(".trial.mp4")
    _mux(trial, 2, 600, noise)
    rendition = _rendition(open_asset(discover(trial)[0]), "video")
    boxes = rendition.segment(0).size - 600
    trial.unlink()
    _mux(target, count, size - boxes, noise)


def _mux(target: Path, count: int, sample: int, noise: bool) -> None:
    with av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}) as output:
        stream = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        frame = av.VideoFrame(64, 64, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        encoded = b"".join(bytes(packet) for packet in [*stream.encode(frame), *stream.encode(None)])
        picture = _START_CODE + _slice(encoded)
        room = sample - len(picture) - 6
        random = np.random.default_rng(1)
        for n in range(count):
            # Decoders pass over filler data as over a NAL unit of type 30, which has no meaning; without a zero in it
            # nothing in it looks like a start code.
            rest = b"\x1e" + random.integers(1, 256, room, np.uint8).tobytes() if noise else b"\x0c" + b"\xff" * room
            packet = av.Packet(picture + _START_CODE + rest + b"\x80")
            packet.stream = stream
            packet.time_base = Fraction(1, 1000)
            packet.pts = packet.dts = n * SEGMENT_S * 1000
            packet.duration = SEGMENT_S * 1000
            packet.is_keyframe = True
            output.mux(packet)


def _slice(encoded: bytes) -> bytes:
    """The IDR picture (NAL unit type 5) without what x264 tells of itself."""
    for unit in encoded.replace(_START_CODE, _START_CODE[1:]).split(_START_CODE[1:]):
        if unit and unit[0] & 0x1F == 5:
            return unit
    raise RuntimeError("x264 made no IDR picture")
