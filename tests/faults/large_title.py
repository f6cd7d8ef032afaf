"""A title whose segments are so large that something can go wrong while one is being written."""

from __future__ import annotations

from pathlib import Path

from streamgate.native.isobmff import read_index
from streamgate.storage.objects.file import FileSource
from tests.media_factory import Video, make
from tests.native import mp4_builder as mp4

FRAME = 512 * 1024
_FPS, _GOP, _GOPS = 25, 100, 6


def make_large(path: Path, frame: int = FRAME) -> Path:
    """Segments of 4 s and, unless told otherwise, 50 MiB: frames of 512 KiB, nothing in them but their number; a sparse file."""
    small = path.with_name("small.mp4")
    make(small, Video(gop=25), None, seconds=1)
    source = FileSource(small)
    entry = read_index(source.read, source.size).tracks[0].entries[0]
    small.unlink()
    count = _GOP * _GOPS
    first = len(mp4.ftyp()) + 16
    table = mp4.stbl(
        [frame] * count,
        [512] * count,
        [(first, count)],
        syncs=range(0, count, _GOP),
        co64=True,
        entries=(entry,),
    )
    trak = mp4.trak(table, timescale=_FPS * 512, size=(160, 90))
    with path.open("wb") as file:
        file.write(mp4.ftyp())
        file.write(mp4.u32(1) + b"mdat" + mp4.u64(16 + count * frame))
        for number in range(count):
            file.seek(first + number * frame)
            file.write(number.to_bytes(8, "big"))
        file.seek(first + count * frame)
        file.write(mp4.moov(trak))
    return path
