"""A walk through the SBR data of one channel up to its extensions (ISO/IEC 14496-3 section 4.4.2.8), to find parametric stereo.

Nothing is decoded: of the Huffman codes only the lengths matter. The codes are canonical (shorter ones first, in order), so that the
numbers of codes of each length say all (tables 4.A.78 to 4.A.87).
"""

from __future__ import annotations

from streamgate.errors import StreamGateError

from .bits import Bits, malformed
from .sbr_bands import Bands, Header, bands

# How many codes have 1, 2, 3 … bits: envelopes in steps of 1.5 dB and 3 dB, along time and frequency; noise along time.
_TIME_1_5 = (0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 2, 3, 4, 2, 7, 4, 8, 72)
_FREQUENCY_1_5 = (0, 2, 2, 2, 2, 2, 1, 3, 3, 2, 4, 4, 4, 3, 2, 5, 6, 13, 15, 46)
_TIME_3 = (1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 2, 1, 2, 5, 1, 4, 2, 3, 34)
_FREQUENCY_3 = (1, 1, 1, 1, 1, 1, 0, 2, 2, 2, 2, 2, 1, 2, 3, 4, 4, 7, 10, 16)
_NOISE_TIME = (1, 1, 1, 1, 1, 1, 0, 2, 0, 1, 1, 0, 51, 2)
_NOISE_FREQUENCY = _FREQUENCY_3

_FIXFIX, _FIXVAR, _VARFIX = 0, 1, 2
_MOST_ENVELOPES = {_FIXFIX: 4, 3: 5}
_PARAMETRIC_STEREO = 2


def has_parametric_stereo(payload: bytes, start: int, core_rate: int) -> bool:
    """Whether a single channel's SBR data carries PS (bs_extension_id 2, section 8.6.4).

    ``start`` is the bit of ``payload`` at which bs_header_flag, which must be set, lies; ``payload`` ends where the fill element does.
    False as well for data that is malformed or has no PS; never reads beyond the payload.
    """
    bits = Bits(payload)
    try:
        bits.skip(start + 1)
        header = Header.read(bits)
        return _extension(bits, header, bands(header, 2 * core_rate)) == _PARAMETRIC_STEREO
    except StreamGateError:
        return False


def _extension(bits: Bits, header: Header, counts: Bands) -> int | None:
    """sbr_single_channel_element: the first bs_extension_id, or None where there is none."""
    if bits.flag():  # bs_data_extra
        bits.skip(4)
    frame_class, resolutions = _grid(bits)
    noises = 2 if len(resolutions) > 1 else 1
    along_time = [bits.flag() for _ in resolutions]
    noise_along_time = [bits.flag() for _ in range(noises)]
    bits.skip(2 * counts.noise)  # bs_invf_mode
    coarse = header.amp_res and not (frame_class == _FIXFIX and len(resolutions) == 1)
    time, frequency, first = (_TIME_3, _FREQUENCY_3, 6) if coarse else (_TIME_1_5, _FREQUENCY_1_5, 7)
    for high, by_time in zip(resolutions, along_time, strict=True):
        _values(bits, counts.high if high else counts.low, time if by_time else frequency, 0 if by_time else first)
    for by_time in noise_along_time:
        _values(bits, counts.noise, _NOISE_TIME if by_time else _NOISE_FREQUENCY, 0 if by_time else 5)
    if bits.flag():  # bs_add_harmonic_flag
        bits.skip(counts.high)
    if not bits.flag():  # bs_extended_data
        return None
    size = bits.read(4)
    if size == 15:
        size += bits.read(8)
    if not 0 < 8 * size <= bits.left:
        raise malformed("an SBR extension is longer than its payload")
    return bits.read(2)


def _grid(bits: Bits) -> tuple[int, list[bool]]:
    """sbr_grid: bs_frame_class, and for each envelope whether it has the high frequency resolution."""
    frame_class = bits.read(2)
    if frame_class == _FIXFIX:
        count = 1 << bits.read(2)
        resolutions = [bits.flag()] * count
    else:
        both = frame_class not in (_FIXVAR, _VARFIX)
        bits.skip(4 if both else 2)  # the variable borders
        relative = [bits.read(2) for _ in range(2 if both else 1)]
        bits.skip(2 * sum(relative))
        count = 1 + sum(relative)
        bits.skip(count.bit_length())  # bs_pointer: ceil(log2(count + 1)) bits
        resolutions = [bits.flag() for _ in range(count)]
        if frame_class == _FIXVAR:  # alone written from the last to the first
            resolutions.reverse()
    if count > _MOST_ENVELOPES.get(frame_class, count):
        raise malformed("an SBR grid has too many envelopes")
    return frame_class, resolutions


def _values(bits: Bits, count: int, lengths: tuple[int, ...], first: int) -> None:
    """Pass over ``count`` values; the first has ``first`` bits where that is not 0, the others are codes."""
    if first:
        bits.skip(first)
        count -= 1
    for _ in range(count):
        _code(bits, lengths)


def _code(bits: Bits, lengths: tuple[int, ...]) -> None:
    """Pass over one canonical code."""
    above = 0  # the number that the bits make, counted from the first code of this length
    for codes in lengths:
        above = 2 * above + bits.read(1)
        if above < codes:
            return
        above -= codes
