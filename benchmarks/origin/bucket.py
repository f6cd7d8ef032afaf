"""What the bucket holds for ``python -m benchmarks origin``: titles, and where in them each segment's bytes lie."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from pathlib import Path

import av

from benchmarks import footage
from streamgate.storage.assets import discover, open_asset


@dataclass(frozen=True)
class Title:
    """A lone file as it lies in the bucket under ``key``. Of its first video rendition: how many bytes each segment has,
    and the span of the file, offset and length, that holds all that the segment needs."""

    file: Path
    asset: str
    sizes: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]

    @property
    def key(self) -> str:
        """Its name in the bucket."""
        return self.file.name

    def read(self, start: int, length: int) -> bytes:
        """Bytes [start, start + length)."""
        with self.file.open("rb") as file:
            file.seek(start)
            return file.read(length)

    def segment(self, n: int) -> bytes:
        """Segment ``n`` as every server of ours must send it."""
        plan = open_asset(discover(self.file)[0]).presentation.video[0].segment(n)
        start, length = plan.span
        return plan.from_buffer(self.read(start, length), start)


def opened(file: Path) -> Title:
    """What there is to know of ``file``."""
    asset = open_asset(discover(file)[0])
    rendition = asset.presentation.video[0]
    plans = [rendition.segment(n) for n in range(rendition.segments)]
    return Title(file, asset.id, tuple(plan.size for plan in plans), tuple(plan.span for plan in plans))


def long(minutes: int) -> Title:
    """A title whose index comes first, as it should be."""
    return opened(footage.title(minutes))


def cold(number: int) -> Title:
    """A minute whose index comes last, which takes two requests to open; every ``number`` gives other bytes."""
    source = footage.title(1)
    path = footage.cache().parent / "origin" / f"cold-{number}-{source.stem}.mp4"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        aside = path.with_suffix(".part")
        _copy(source, aside, f"copy {number}")
        aside.rename(path)
    return opened(path)


def again(title: Title, number: int) -> Title:
    """The same file under a name that every ``number`` gives: another source to whoever reads the bucket."""
    path = footage.cache().parent / "origin" / f"again-{number}-{title.key}"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.hardlink_to(title.file)
    return replace(title, file=path, asset=discover(path)[0].id)


def moov(file: Path) -> tuple[int, int]:
    """Offset and length of the box that holds the index (ISO/IEC 14496-12 section 8.2.1)."""
    with file.open("rb") as data:
        at = 0
        while head := data.read(16):
            size, kind = struct.unpack(">I4s", head[:8])
            if size == 1:
                (size,) = struct.unpack(">Q", head[8:])
            if kind == b"moov":
                return at, size
            at += size
            data.seek(at)
    raise RuntimeError(f"{file.name} has no moov")


def _copy(source: Path, target: Path, comment: str) -> None:
    with av.open(str(source)) as found, av.open(str(target), "w", format="mp4") as output:
        output.metadata["comment"] = comment
        streams = {stream.index: output.add_stream_from_template(stream) for stream in found.streams}
        for packet in found.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
