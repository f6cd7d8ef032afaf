"""Colour code points (ISO/IEC 23091-2, ITU-T H.273) and what HLS calls the video range."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .bits import Bits

UNSPECIFIED = 2
_RANGES = {16: "PQ", 18: "HLG"}
_EXTENDED_SAR = 255


@dataclass(frozen=True, slots=True)
class Colour:
    """Primaries, transfer characteristics and matrix coefficients by number; whether samples use the full range."""

    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    matrix: int = UNSPECIFIED
    full_range: bool = False

    @classmethod
    def from_colr(cls, payload: bytes) -> Colour | None:
        """From a ``colr`` box (ISO/IEC 14496-12 section 12.1.5); None unless it gives code points."""
        if payload[:4] == b"nclx" and len(payload) >= 11:
            primaries, transfer, matrix = struct.unpack_from(">HHH", payload, 4)
            return cls(primaries, transfer, matrix, payload[10] >= 0x80)
        if payload[:4] == b"nclc" and len(payload) >= 10:
            return cls(*struct.unpack_from(">HHH", payload, 4))
        return None

    @classmethod
    def from_vui(cls, bits: Bits) -> Colour:
        """From the beginning of VUI parameters, which H.264 (annex E.1.1) and HEVC (annex E.2.1) share."""
        if bits.flag() and bits.read(8) == _EXTENDED_SAR:
            bits.skip(32)
        if bits.flag():  # overscan
            bits.skip(1)
        if not bits.flag():  # video signal type
            return cls()
        bits.skip(3)
        full_range = bits.flag()
        if not bits.flag():
            return cls(full_range=full_range)
        return cls(bits.read(8), bits.read(8), bits.read(8), full_range)

    @property
    def specified(self) -> bool:
        """Whether any of the three code points says something."""
        return (self.primaries, self.transfer, self.matrix) != (UNSPECIFIED,) * 3


def video_range(container: Colour | None, bitstream: Colour | None) -> str:
    """'SDR', 'PQ' or 'HLG': by the container if it tells, else by the bitstream."""
    for colour in (container, bitstream):
        if colour and colour.transfer != UNSPECIFIED:
            return _RANGES.get(colour.transfer, "SDR")
    return "SDR"
