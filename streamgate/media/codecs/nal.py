"""NAL units as samples and configuration records carry them (ISO/IEC 14496-15 section 4.3)."""

from __future__ import annotations

import re

from .bits import malformed

_EMULATION = re.compile(rb"\x00\x00\x03")


def unescape(unit: bytes) -> bytes:
    """The raw byte sequence payload: without emulation prevention bytes (ISO/IEC 14496-10 section 7.3.1)."""
    return _EMULATION.sub(b"\x00\x00", unit)


def leading_units(sample: bytes, length_size: int) -> tuple[list[bytes], bool]:
    """The NAL units that lie whole in the beginning of a sample; and whether the sample goes on behind them.

    ``sample`` may be cut anywhere. A unit that is cut is given as far as it goes, if at least its first byte is there.
    """
    units = []
    at = 0
    while at + length_size < len(sample):
        size = int.from_bytes(sample[at : at + length_size])
        at += length_size
        units.append(sample[at : at + size])
        at += size
    return units, at > len(sample)


def take(record: bytes, at: int) -> tuple[bytes, int]:
    """The parameter set with a 16-bit length at ``at``, and where the next one starts."""
    end = at + 2 + int.from_bytes(record[at : at + 2])
    if at + 2 > len(record) or end > len(record):
        raise malformed("a parameter set does not fit into its configuration record")
    return record[at + 2 : end], end
