"""Files whose picture is not shown as it is coded: turned by the track's matrix, or of pixels that are no squares."""

from __future__ import annotations

import struct
from pathlib import Path

from tests.media_factory import Video, make

SIZE = (160, 90)  # as coded
# ISO/IEC 14496-12 section 6.2.2, fixed point 16.16 (w: 2.30): (x, y) -> (90 - y, x), clockwise.
QUARTER_TURN = (0, 1 << 16, 0, -1 << 16, 0, 0, SIZE[1] << 16, 0, 1 << 30)
PIXELS = "4:3"
SHOWN = {"turned.mp4": (90, 160), "wide-pixels.mp4": (213, 90)}  # 160 x 4/3 = 213.3


def turned(path: Path) -> Path:
    """A clip that a player turns clockwise by 90 degrees."""
    make(path, Video(size=SIZE))
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd", data.index(b"moov"))  # the first track is the video
    assert data[header + 4] == 0, "tkhd has 32-bit times"
    struct.pack_into(">9i", data, header + 4 + 40, *QUARTER_TURN)
    path.write_bytes(data)
    return path


def wide_pixels(path: Path) -> Path:
    """A clip with ``pasp``: its pixels are wider than high."""
    return make(path, Video(size=SIZE, options={"aspect": PIXELS}))
