"""Finding SBR and parametric stereo in AAC frames (ISO/IEC 14496-3 sections 4.4.2.1, 4.4.2.7 and 4.4.2.8)."""

from __future__ import annotations

from .bits import Bits
from .sbr_payload import has_parametric_stereo

_FIL, _END = 6, 7
_EXT_FILL, _EXT_FILL_DATA, _EXT_SBR, _EXT_SBR_CRC = 0, 1, 13, 14


def ends_with_sbr(frame: bytes) -> bool:
    """Whether a raw_data_block (section 4.4.2.1) ends with an SBR payload that has a header.

    The elements before need Huffman decoding to be walked, so the block is read from its end: alignment, ID_END,
    and before it a fill element, whose length must lead exactly there; fill elements with mere filling may follow.
    At least 13 bits must agree, at some twenty places: about one in 400 frames without SBR would be mistaken.
    """
    return _find(frame) is not None


def ends_with_ps(frame: bytes, core_rate: int) -> bool:
    """Whether the SBR payload at the end of a mono raw_data_block carries parametric stereo; ``core_rate`` in Hz."""
    found = _find(frame)
    if found is None:
        return False
    body, size = found
    bits = Bits(frame)
    bits.position = body
    payload = bits.read(8 * size).to_bytes(size)
    return has_parametric_stereo(payload, 14 if payload[0] >> 4 == _EXT_SBR_CRC else 4, core_rate)


def _find(frame: bytes) -> tuple[int, int] | None:
    """Where the SBR payload lies (bit), and how many bytes it has."""
    bits = Bits(frame)
    last = 8 * len(frame) - 3
    # The alignment bits behind ID_END ought to be 0, but encoders leave anything there.
    ends = (end for end in range(last - 7, last + 1) if _is_end(bits, end))
    return next((found for end in ends if (found := _sbr_before(bits, end))), None)


def _is_end(bits: Bits, position: int) -> bool:
    bits.position = max(position, 0)
    return position >= 0 and bits.read(3) == _END


def _sbr_before(bits: Bits, end: int) -> tuple[int, int] | None:
    """The SBR payload (bit, bytes) where the elements that end at bit ``end`` are one and perhaps a few fill elements."""
    for _ in range(4):
        filling = 0
        for start, body, size in _fill_elements(bits, end):
            if _is_sbr(bits, body, size):
                return body, size
            if not filling and _is_filling(bits, body, size):
                filling = start
        if not filling:
            return None
        end = filling
    return None


def _fill_elements(bits: Bits, end: int) -> list[tuple[int, int, int]]:
    """The fill elements that could end at bit ``end``: start, start of the payload, payload in bytes."""
    found = []
    for size in range(1, 15 + 255):
        escaped = size >= 15
        start = end - 8 * size - (15 if escaped else 7)
        if start < 0:
            break
        bits.position = start
        if bits.read(3) != _FIL or bits.read(4) != (15 if escaped else size):
            continue
        if not escaped or bits.read(8) == size - 14:
            found.append((start, bits.position, size))
    return found


def _is_sbr(bits: Bits, body: int, size: int) -> bool:
    """Whether a payload is sbr_extension_data (section 4.4.2.8) with a header whose reserved bits are 0."""
    bits.position = body
    kind = bits.read(4)
    if kind not in (_EXT_SBR, _EXT_SBR_CRC) or size < 4:
        return False
    bits.skip(10 if kind == _EXT_SBR_CRC else 0)
    # bs_header_flag; bs_amp_res, bs_start_freq, bs_stop_freq, bs_xover_band; bs_reserved
    return bits.flag() and bits.read(12) >= 0 and bits.read(2) == 0


def _is_filling(bits: Bits, body: int, size: int) -> bool:
    """Whether a payload is only there to fill: zeros, or the fill bytes of section 4.5.2.9.2."""
    bits.position = body
    kind, content = bits.read(4), bits.read(8 * size - 4)
    if kind == _EXT_FILL_DATA:
        return content == int.from_bytes(b"\xa5" * (size - 1))
    return kind == _EXT_FILL and content == 0
