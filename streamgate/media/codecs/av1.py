"""AV1 in ``av01`` entries (AV1 Codec ISO Media File Format Binding, sections 2.2, 2.3 and 5)."""

from __future__ import annotations

from dataclasses import dataclass

from streamgate.errors import StreamGateError

from .bits import Bits, malformed
from .codec import Codec, unplayable
from .colour import Colour, video_range
from .entry import VisualEntry

_SEQUENCE_HEADER = 1
_SELECT_SCREEN_CONTENT_TOOLS = 2
FIRST_SAMPLE = 1024
# What the optional fields of the codecs parameter mean when they are left out (section 5): BT.709, limited range.
_DEFAULT = Colour(1, 1, 1, False)


@dataclass(frozen=True, slots=True)
class _Record:
    """AV1CodecConfigurationRecord (section 2.3.3)."""

    profile: int
    level: int
    high_tier: bool
    depth: int
    monochrome: bool
    chroma: str  # subsampling_x, subsampling_y, chroma_sample_position
    obus: bytes

    @classmethod
    def parse(cls, config: bytes) -> _Record:
        bits = Bits(config)
        if bits.read(8) != 0x81:
            raise malformed("the av1C box has an unknown version")
        profile, level, tier = bits.read(3), bits.read(5), bits.flag()
        depth = 8 + 2 * bits.flag() + 2 * bits.flag()
        monochrome = bits.flag()
        across, down, position = bits.read(1), bits.read(1), bits.read(2)
        chroma = f"{across}{down}{position if across and down else 0}"
        return cls(profile, level, tier, depth, monochrome, chroma, config[4:])


def wants_first_sample(kind: str, entry: VisualEntry) -> int:
    """The sequence header is asked for when neither record nor ``colr`` tell the colour."""
    record = _Record.parse(entry.config("av1C", 4))
    return 0 if entry.colour or _sequence_header(record.obus) else FIRST_SAMPLE


def describe(kind: str, entry: VisualEntry, first_sample: bytes) -> Codec:
    """The :class:`Codec` of an ``av01`` entry; raises ``source_malformed``."""
    config = entry.config("av1C", 4)
    record = _Record.parse(config)
    header = _sequence_header(record.obus) or _sequence_header(first_sample)
    bitstream = sequence_colour(header) if header else None
    string = _string(record, entry.colour, bitstream)
    problem = None
    if record.profile:
        problem = unplayable(string, f"AV1 profile {record.profile} is not decoded by every browser")
    return Codec(
        kind="video",
        family="av1",
        string=string,
        entry=entry.build(kind, "av1C", config, bitstream),
        config=config,
        width=entry.width,
        height=entry.height,
        pasp=entry.pasp,
        video_range=video_range(entry.colour, bitstream),
        playable=problem is None,
        problem=problem,
    )


def _string(record: _Record, container: Colour | None, bitstream: Colour | None) -> str:
    short = f"av01.{record.profile}.{record.level:02}{'H' if record.high_tier else 'M'}.{record.depth:02}"
    colour = next((c for c in (container, bitstream) if c and c.specified), bitstream or container or Colour())
    # Unspecified code points say no more than the defaults, and short strings are understood by older players.
    if colour in (Colour(), _DEFAULT) and not record.monochrome and record.chroma == "110":
        return short
    points = f"{colour.primaries:02}.{colour.transfer:02}.{colour.matrix:02}.{colour.full_range:d}"
    return f"{short}.{record.monochrome:d}.{record.chroma}.{points}"


def _sequence_header(obus: bytes) -> bytes | None:
    """Payload of the first sequence header OBU (AV1 specification section 5.3); None when there is none."""
    at = 0
    while at < len(obus):
        head = obus[at]
        at += 2 if head & 4 else 1
        if not head & 2:  # no size: the last one
            end = len(obus)
        else:
            size = shift = 0
            while True:
                if at >= len(obus) or shift > 49:
                    return None
                size |= (obus[at] & 127) << shift
                shift += 7
                at += 1
                if obus[at - 1] < 128:
                    break
            end = at + size
        if head >> 3 & 15 == _SEQUENCE_HEADER:
            return obus[at:end]
        at = end
    return None


def sequence_colour(header: bytes) -> Colour | None:
    """Colour of a sequence header (AV1 specification section 5.5); None when it cannot be read."""
    try:
        return _read_colour(Bits(header))
    except StreamGateError:
        return None


def _read_colour(bits: Bits) -> Colour:
    profile = bits.read(3)
    bits.skip(1)
    reduced = bits.flag()
    if reduced:
        bits.skip(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    bits.skip(width_bits + height_bits)
    if not reduced and bits.flag():  # frame ids
        bits.skip(7)
    bits.skip(3)
    if not reduced:
        _skip_tools(bits)
    bits.skip(3)
    # color_config (section 5.5.2)
    if bits.flag() and profile == 2:
        bits.skip(1)
    monochrome = profile != 1 and bits.flag()
    points = (bits.read(8), bits.read(8), bits.read(8)) if bits.flag() else (2, 2, 2)
    if not monochrome and points == (1, 13, 0):  # sRGB
        return Colour(*points, True)
    return Colour(*points, bits.flag())


def _skip_operating_points(bits: Bits) -> None:
    delay_bits = 0
    if bits.flag():  # timing info
        bits.skip(64)
        if bits.flag():  # equal_picture_interval
            bits.ue()
        if bits.flag():  # decoder model info
            delay_bits = bits.read(5) + 1
            bits.skip(42)
    display_delay = bits.flag()
    for _ in range(bits.read(5) + 1):
        bits.skip(12)
        if bits.read(5) > 7:
            bits.skip(1)
        if delay_bits and bits.flag():
            bits.skip(2 * delay_bits + 1)
        if display_delay and bits.flag():
            bits.skip(4)


def _skip_tools(bits: Bits) -> None:
    bits.skip(4)
    order_hint = bits.flag()
    if order_hint:
        bits.skip(2)
    screen_content = _SELECT_SCREEN_CONTENT_TOOLS if bits.flag() else bits.read(1)
    if screen_content and not bits.flag():  # seq_choose_integer_mv
        bits.skip(1)
    if order_hint:
        bits.skip(3)
