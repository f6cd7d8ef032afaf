"""VP9 in ``vp09`` entries (VP Codec ISO Media File Format Binding v1.0)."""

from __future__ import annotations

from streamgate.errors import StreamGateError

from .bits import Bits
from .codec import Codec, unplayable
from .colour import Colour, video_range
from .entry import VisualEntry

# What the optional fields of the codecs parameter mean when left out: 4:2:0 colocated with luma (0, 0), BT.709.
_DEFAULT_CHROMA = 1
_DEFAULT = Colour(1, 1, 1, False)
# Luma picture size of each level (VP9 levels, webmproject.org/vp9/levels).
_LEVELS = (
    (36864, 10),
    (73728, 11),
    (122880, 20),
    (245760, 21),
    (552960, 30),
    (983040, 31),
    (2228224, 40),
    (8912896, 50),
    (35651584, 60),
)


def describe(kind: str, entry: VisualEntry, first_sample: bytes) -> Codec:
    """The :class:`Codec` of a ``vp09`` entry; raises ``source_malformed`` or, for a draft, ``codec_unsupported``."""
    config = entry.config("vpcC", 12)
    bits = Bits(config)
    if bits.read(8) != 1:
        raise StreamGateError("codec_unsupported", "the vpcC box is of a draft version")
    bits.skip(24)
    profile, level, depth, chroma = bits.read(8), bits.read(8), bits.read(4), bits.read(3)
    full_range = bits.flag()
    bitstream = Colour(bits.read(8), bits.read(8), bits.read(8), full_range)
    # 0: unknown. The picture's size gives the lowest level possible; a string needs one.
    level = level or _least_level(entry.width * entry.height)
    string = f"{kind}.{profile:02}.{level:02}.{depth:02}"
    points = bitstream if bitstream.specified else entry.colour or bitstream
    colour = Colour(points.primaries, points.transfer, points.matrix, full_range)
    # Unspecified code points say no more than the defaults, and short strings are understood by older players.
    if chroma != _DEFAULT_CHROMA or (colour != Colour() and colour != _DEFAULT):
        string += f".{chroma:02}.{colour.primaries:02}.{colour.transfer:02}.{colour.matrix:02}.{full_range:02d}"
    problem = None
    if profile not in (0, 2):
        problem = unplayable(string, f"VP9 profile {profile} is not decoded by every browser")
    return Codec(
        kind="video",
        family="vp9",
        string=string,
        entry=entry.build(kind, "vpcC", config, bitstream),
        config=config,
        width=entry.width,
        height=entry.height,
        pasp=entry.pasp,
        video_range=video_range(entry.colour, bitstream),
        playable=problem is None,
        problem=problem,
    )


def _least_level(pixels: int) -> int:
    return next((level for size, level in _LEVELS if pixels <= size), 62)
