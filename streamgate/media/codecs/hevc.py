"""HEVC (ISO/IEC 23008-2) in ``hvc1`` and ``hev1`` entries (ISO/IEC 14496-15 section 8; strings: annex E.3)."""

from __future__ import annotations

from streamgate.errors import Finding, StreamGateError

from .bits import Bits, malformed
from .codec import Codec, unplayable
from .colour import Colour, video_range
from .entry import VisualEntry
from .nal import leading_units, take, unescape

_VPS, _SPS, _PPS = _PARAMETER_SETS = (32, 33, 34)
_RECORD = 23
FIRST_SAMPLE = 16384

# Main, Main 10, Main Still Picture: by profile or by compatibility flag.
_PLAYABLE = {1, 2, 3}
_NAMES = {4: "range extensions", 5: "High Throughput", 6: "Multiview", 7: "Scalable", 9: "screen content coding"}


def wants_first_sample(kind: str, entry: VisualEntry) -> int:
    """A ``hev1``, or a record without parameter sets: the first sample tells where they are."""
    arrays = _arrays(entry.config("hvcC", _RECORD))
    return 0 if kind == "hvc1" and _complete(arrays) else FIRST_SAMPLE


def describe(kind: str, entry: VisualEntry, first_sample: bytes) -> Codec:
    """The :class:`Codec` of an ``hvc1`` or ``hev1`` entry; raises ``source_malformed``."""
    config = entry.config("hvcC", _RECORD)
    arrays = _arrays(config)
    in_band = _in_band(first_sample, (config[21] & 3) + 1)
    if not _complete(arrays):
        kind = "hev1"
    elif in_band == []:
        kind = "hvc1"
    if kind == "hvc1":
        config = _completed(config)
    sps = next((units[0] for at, units in arrays if config[at] & 63 == _SPS and units), None)
    sps = sps or next((unit for unit in in_band or () if unit[0] >> 1 & 63 == _SPS), None)
    bitstream = sps_colour(sps) if sps else None
    string = codec_string(kind, config)
    problem = _problem(config, string)
    return Codec(
        kind="video",
        family="hevc",
        string=string,
        entry=entry.build(kind, "hvcC", config, bitstream),
        config=config,
        width=entry.width,
        height=entry.height,
        pasp=entry.pasp,
        video_range=video_range(entry.colour, bitstream),
        playable=problem is None,
        problem=problem,
    )


def codec_string(kind: str, config: bytes) -> str:
    """The codecs parameter of an HEVCDecoderConfigurationRecord (ISO/IEC 14496-15 annex E.3)."""
    space = ("", "A", "B", "C")[config[1] >> 6]
    compatibility = int(f"{int.from_bytes(config[2:6]):032b}"[::-1], 2)
    tier = "H" if config[1] & 0x20 else "L"
    constraints = "".join(f".{byte:X}" for byte in config[6:12].rstrip(b"\0"))
    return f"{kind}.{space}{config[1] & 31}.{compatibility:X}.{tier}{config[12]}{constraints}"


def _problem(config: bytes, string: str) -> Finding | None:
    profile = config[1] & 31
    flags = int.from_bytes(config[2:6])
    if config[1] >> 6 == 0 and any(profile == p or flags >> (31 - p) & 1 for p in _PLAYABLE):
        return None
    return unplayable(string, f"HEVC {_NAMES.get(profile, f'profile {profile}')} is decoded by no browser")


def _arrays(config: bytes) -> list[tuple[int, list[bytes]]]:
    """The record's arrays (ISO/IEC 14496-15 section 8.3.3.1): where each one's header byte is, and its units."""
    if config[0] != 1 or config[21] & 3 == 2:
        raise malformed("the hvcC box has an unknown version or length size")
    arrays = []
    at = _RECORD
    for _ in range(config[22]):
        start = at
        if at + 3 > len(config):
            raise malformed("the hvcC box ends too early")
        count = int.from_bytes(config[at + 1 : at + 3])
        at += 3
        units = []
        for _ in range(count):
            unit, at = take(config, at)
            if len(unit) > 2:
                units.append(unit)
        arrays.append((start, units))
    return arrays


def _complete(arrays: list[tuple[int, list[bytes]]]) -> bool:
    """Whether the record has parameter sets of all three types."""
    return {unit[0] >> 1 & 63 for _, units in arrays for unit in units} >= set(_PARAMETER_SETS)


def _completed(config: bytes) -> bytes:
    """The record with array_completeness set for parameter sets, which ``hvc1`` demands (section 8.4.1)."""
    record = bytearray(config)
    for at, _ in _arrays(config):
        if record[at] & 63 in _PARAMETER_SETS:
            record[at] |= 0x80
    return bytes(record)


def _in_band(sample: bytes, length_size: int) -> list[bytes] | None:
    """Parameter sets before the first slice of a sample; None when the bytes given do not reach a slice."""
    found = []
    for unit in leading_units(sample, length_size)[0]:
        kind = unit[0] >> 1 & 63 if unit else 63
        if kind in _PARAMETER_SETS:
            found.append(unit)
        elif kind < _VPS:
            return found
    return found or None


def sps_colour(sps: bytes) -> Colour | None:
    """Colour of a sequence parameter set (section 7.3.2.2.1); None when it has none or cannot be read."""
    try:
        return _read_colour(Bits(unescape(sps[2:])))
    except StreamGateError:
        return None


def _read_colour(bits: Bits) -> Colour | None:
    bits.skip(4)
    layers = bits.read(3)  # sps_max_sub_layers_minus1
    bits.skip(1)
    _skip_profile_tier_level(bits, layers)
    bits.ue()
    if bits.count(3, "chroma_format_idc") == 3:
        bits.skip(1)
    bits.ue()
    bits.ue()
    if bits.flag():  # conformance window
        for _ in range(4):
            bits.ue()
    bits.ue()
    bits.ue()
    order_bits = 4 + bits.count(12, "log2_max_pic_order_cnt_lsb_minus4")
    for _ in range(layers + 1 if bits.flag() else 1):
        for _ in range(3):
            bits.ue()
    for _ in range(6):  # block sizes and depths
        bits.ue()
    if bits.flag() and bits.flag():  # scaling lists
        _skip_scaling_lists(bits)
    bits.skip(2)
    if bits.flag():  # PCM
        bits.skip(8)
        bits.ue()
        bits.ue()
        bits.skip(1)
    _skip_reference_sets(bits)
    if bits.flag():  # long-term pictures
        for _ in range(bits.count(32, "num_long_term_ref_pics_sps")):
            bits.skip(order_bits + 1)
    bits.skip(2)
    return Colour.from_vui(bits) if bits.flag() else None


def _skip_profile_tier_level(bits: Bits, layers: int) -> None:
    bits.skip(96)
    present = [(bits.flag(), bits.flag()) for _ in range(layers)]
    if layers:
        bits.skip(2 * (8 - layers))
    for profile, level in present:
        bits.skip(88 * profile + 8 * level)


def _skip_scaling_lists(bits: Bits) -> None:
    for size in range(4):
        for _ in range(2 if size == 3 else 6):
            if not bits.flag():
                bits.ue()
                continue
            if size > 1:
                bits.se()
            for _ in range(min(64, 1 << (4 + 2 * size))):
                bits.se()


def _skip_reference_sets(bits: Bits) -> None:
    """The short-term reference picture sets (section 7.3.7)."""
    pictures = 0  # of the set before
    for index in range(bits.count(64, "num_short_term_ref_pic_sets")):
        if index and bits.flag():  # predicted from the set before
            bits.skip(1)
            bits.ue()
            kept = 0
            for _ in range(pictures + 1):
                # used_by_curr_pic_flag, or else use_delta_flag
                kept += bits.flag() or bits.flag()
            pictures = kept
        else:
            pictures = bits.count(16, "num_negative_pics") + bits.count(16, "num_positive_pics")
            for _ in range(pictures):
                bits.ue()
                bits.skip(1)
