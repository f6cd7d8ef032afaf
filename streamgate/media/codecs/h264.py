"""H.264 (ISO/IEC 14496-10) in ``avc1`` and ``avc3`` entries (ISO/IEC 14496-15 section 5)."""

from __future__ import annotations

from streamgate.errors import Finding, StreamGateError

from .bits import Bits, malformed
from .codec import Codec, unplayable
from .colour import Colour, video_range
from .entry import VisualEntry
from .nal import leading_units, take, unescape

_SPS, _PPS, _SPS_EXTENSION = 7, 8, 13
_VCL = range(1, 6)
# Enough for access unit delimiter, parameter sets and SEI messages before the first slice.
FIRST_SAMPLE = 16384

# Profiles that every browser decodes: Baseline, Main, High.
_PLAYABLE = {66, 77, 100}
_NAMES = {
    44: "CAVLC 4:4:4 Intra",
    83: "Scalable Baseline",
    86: "Scalable High",
    88: "Extended",
    110: "High 10",
    118: "Multiview High",
    122: "High 4:2:2",
    128: "Stereo High",
    244: "High 4:4:4 Predictive",
}
# Profiles whose SPS has the chroma fields (section 7.3.2.1.1).
_WITH_CHROMA = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}


def wants_first_sample(kind: str, entry: VisualEntry) -> int:
    """An ``avc3``, or a record without parameter sets: the first sample tells where they are."""
    sps, pps = _parameter_sets(entry.config("avcC", 7))
    return 0 if kind == "avc1" and sps and pps else FIRST_SAMPLE


def describe(kind: str, entry: VisualEntry, first_sample: bytes) -> Codec:
    """The :class:`Codec` of an ``avc1`` or ``avc3`` entry; raises ``source_malformed``."""
    config = entry.config("avcC", 7)
    sps, pps = _parameter_sets(config)
    in_band = _in_band(first_sample, (config[4] & 3) + 1)
    if not (sps and pps):
        kind = "avc3"
    elif in_band == []:
        kind = "avc1"
    sps = sps or [unit for unit in in_band or () if unit[0] & 31 == _SPS]
    bitstream = sps_colour(sps[0]) if sps else None
    string = f"{kind}.{config[1:4].hex().upper()}"
    problem = _problem(config[1], string)
    return Codec(
        kind="video",
        family="h264",
        string=string,
        entry=entry.build(kind, "avcC", config, bitstream),
        config=config,
        width=entry.width,
        height=entry.height,
        pasp=entry.pasp,
        video_range=video_range(entry.colour, bitstream),
        playable=problem is None,
        problem=problem,
    )


def _problem(profile: int, string: str) -> Finding | None:
    if profile in _PLAYABLE:
        return None
    return unplayable(string, f"H.264 {_NAMES.get(profile, f'profile {profile}')} is not decoded by every browser")


def _parameter_sets(config: bytes) -> tuple[list[bytes], list[bytes]]:
    """SPS and PPS units of an AVCDecoderConfigurationRecord (section 5.3.3.1)."""
    if config[0] != 1 or config[4] & 3 == 2:
        raise malformed("the avcC box has an unknown version or length size")
    sets: tuple[list[bytes], list[bytes]] = ([], [])
    at = 5
    for units, mask in zip(sets, (31, 255), strict=True):
        if at >= len(config):
            raise malformed("the avcC box ends too early")
        count = config[at] & mask
        at += 1
        for _ in range(count):
            unit, at = take(config, at)
            if unit:
                units.append(unit)
    return sets


def _in_band(sample: bytes, length_size: int) -> list[bytes] | None:
    """Parameter sets before the first slice of a sample; None when the bytes given do not reach a slice."""
    found = []
    for unit in leading_units(sample, length_size)[0]:
        kind = unit[0] & 31 if unit else 0
        if kind in (_SPS, _PPS, _SPS_EXTENSION):
            found.append(unit)
        elif kind in _VCL:
            return found
    return found or None


def sps_colour(sps: bytes) -> Colour | None:
    """Colour of a sequence parameter set (section 7.3.2.1.1); None when it has none or cannot be read."""
    try:
        return _read_colour(Bits(unescape(sps[1:])))
    except StreamGateError:
        return None


def _read_colour(bits: Bits) -> Colour | None:
    profile = bits.read(8)
    bits.skip(16)
    bits.ue()
    if profile in _WITH_CHROMA:
        _skip_chroma(bits)
    bits.ue()
    order = bits.ue()
    if order == 0:
        bits.ue()
    elif order == 1:
        bits.skip(1)
        bits.se()
        bits.se()
        for _ in range(bits.count(255, "reference frames in the picture order cycle")):
            bits.se()
    bits.ue()
    bits.skip(1)
    bits.ue()
    bits.ue()
    if not bits.flag():  # frames only
        bits.skip(1)
    bits.skip(1)
    if bits.flag():  # cropping
        for _ in range(4):
            bits.ue()
    return Colour.from_vui(bits) if bits.flag() else None


def _skip_chroma(bits: Bits) -> None:
    chroma = bits.count(3, "chroma_format_idc")
    if chroma == 3:
        bits.skip(1)
    bits.ue()
    bits.ue()
    bits.skip(1)
    if not bits.flag():  # scaling matrix
        return
    for index in range(12 if chroma == 3 else 8):
        if not bits.flag():
            continue
        last = following = 8
        for _ in range(16 if index < 6 else 64):
            if following:
                following = (last + bits.se()) & 255
            last = following or last
