"""How many bands an SBR header asks for (ISO/IEC 14496-3 section 4.6.18.3): the counts that its payload is read by."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from math import log2

from .bits import Bits, malformed

# Offsets of bs_start_freq up to this SBR sample rate (table 4.108).
_OFFSETS = (
    (16000, range(-8, 8)),
    (22050, (*range(-5, 8), 9, 11, 13)),
    (24000, (-5, *range(-3, 8), 9, 11, 13, 16)),
    (32000, (-6, -4, *range(-2, 8), 9, 11, 13, 16)),
    (64000, (-4, *range(-2, 8), 9, 11, 13, 16, 20)),
    (192000, (*range(-2, 8), 9, 11, 13, 16, 20, 24)),
)
# QMF bands that may lie above the core, up to this SBR sample rate (section 4.6.18.3.6).
_WIDEST = ((32000, 48), (44100, 35), (192000, 32))
_BANDS_OF_QMF = 64
_HIGHEST_START = 32
_MOST_NOISE = 5
_WARP = 1.3


@dataclass(frozen=True, slots=True)
class Header:
    """sbr_header (section 4.4.2.8) with the defaults of what it leaves out."""

    amp_res: int
    start: int
    stop: int
    crossover: int
    freq_scale: int = 2
    alter_scale: int = 1
    noise_bands: int = 2

    @classmethod
    def read(cls, bits: Bits) -> Header:
        """Raises ``source_malformed`` where the bits end."""
        first = (bits.read(1), bits.read(4), bits.read(4), bits.read(3))
        bits.skip(2)
        scales, limiter = bits.flag(), bits.flag()
        more = (bits.read(2), bits.read(1), bits.read(2)) if scales else ()
        if limiter:
            bits.skip(6)
        return cls(*first, *more)


@dataclass(frozen=True, slots=True)
class Bands:
    """Envelope bands at low and high resolution, and noise bands."""

    low: int
    high: int
    noise: int


def bands(header: Header, sample_rate: int) -> Bands:
    """The counts at the SBR ``sample_rate`` (Hz, twice the core's); ``source_malformed`` where there are none."""
    master, end = _master(header, sample_rate)
    high = len(master) - 1 - header.crossover
    if high < 1 or master[header.crossover] > _HIGHEST_START:
        raise malformed("an SBR header's crossover is beyond its bands")
    noise = max(1, round(header.noise_bands * log2(end / master[header.crossover])))
    if noise > _MOST_NOISE:
        raise malformed("an SBR header has too many noise bands")
    return Bands((high + 1) // 2, high, noise)


def _master(header: Header, sample_rate: int) -> tuple[list[int], int]:
    """The master frequency table (section 4.6.18.3.2.1), in QMF bands, and where it ends by the header."""
    base = 3000 if sample_rate < 32000 else 4000 if sample_rate < 64000 else 5000
    lowest, stop = (round(base * n / sample_rate) for n in (128, 256))
    offsets = next((row for limit, row in _OFFSETS if sample_rate <= limit), None)
    if offsets is None:
        raise malformed(f"SBR has no bands at {sample_rate} Hz")
    start = lowest + offsets[header.start]
    if header.stop < 14:
        end = stop + sum(sorted(_geometric(stop, _BANDS_OF_QMF, 13))[: header.stop])
    else:
        end = start * (header.stop - 12)
    end = min(end, _BANDS_OF_QMF)
    if not 0 < start < end <= start + next(most for limit, most in _WIDEST if sample_rate <= limit):
        raise malformed("an SBR header's bands have an impossible range")
    widths = _scaled(start, end, header) if header.freq_scale else _linear(start, end, header.alter_scale + 1)
    if not widths or min(widths) < 1:
        raise malformed("an SBR header makes empty bands")
    return list(accumulate(widths, initial=start)), end


def _linear(start: int, end: int, width: int) -> list[int]:
    """Bands of one width, an even number of them, and what is left over spread at an end."""
    count = 2 * ((end - start) // 2 if width == 1 else (end - start + 2) // 4)
    widths = [width] * count
    rest = end - start - width * count
    for n in range(min(abs(rest), count)):
        widths[n if rest < 0 else -1 - n] += -1 if rest < 0 else 1
    return widths


def _scaled(start: int, end: int, header: Header) -> list[int]:
    """Bands of growing width, 12, 10 or 8 an octave, coarser in the second of two regions with bs_alter_scale."""
    half = 7 - header.freq_scale
    two_regions = end / start > 2.2449
    middle = 2 * start if two_regions else end
    first = sorted(_geometric(start, middle, 2 * round(half * log2(middle / start))))
    if not two_regions:
        return first
    warp = _WARP if header.alter_scale else 1.0
    second = sorted(_geometric(middle, end, 2 * round(half * log2(end / middle) / warp)))
    if second and first and second[0] < first[-1]:
        change = min(first[-1] - second[0], (second[-1] - second[0]) // 2)
        second[0] += change
        second[-1] -= change
        second.sort()
    return first + second


def _geometric(start: int, end: int, count: int) -> list[int]:
    """The widths of ``count`` bands from ``start`` to ``end`` whose borders grow by one ratio."""
    borders = [round(start * (end / start) ** (n / count)) for n in range(count + 1)] if count > 0 else []
    return [after - before for before, after in zip(borders, borders[1:], strict=False)]
