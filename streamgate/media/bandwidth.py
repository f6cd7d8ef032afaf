"""Bit rates of a rendition from the sizes and durations of its segments, and the buffer that goes with them.

RFC 8216 sections 4.1 and 4.3.4.2; ISO/IEC 23009-1 sections 5.3.1.2 (minBufferTime) and 5.3.5.2 (bandwidth).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgate.native.samples import Track


def average(sizes: NDArray[np.uint64], durations: NDArray[Any], timescale: int) -> int:
    """Bits per second over all segments, rounded up. ``sizes`` in bytes, ``durations`` in ticks, shape (n,) both."""
    return _rate(int(sizes.sum()), int(durations.sum()), timescale)


def peak(sizes: NDArray[np.uint64], durations: NDArray[Any], timescale: int, target: int) -> int:
    """The peak segment bit rate, rounded up: the largest of any contiguous set of segments that lasts 0.5 to 1.5
    targets.

    ``target`` is the target duration in seconds. Where no set of segments lasts so long the average is the peak.
    """
    starts = np.concatenate(([0], np.cumsum(durations.astype(np.int64))))
    bytes_before = np.concatenate(([0], np.cumsum(sizes.astype(np.int64))))
    low, high = target * timescale / 2, target * timescale * 3 / 2
    best = average(sizes, durations, timescale)
    for length in range(1, len(starts)):
        lasts = starts[length:] - starts[:-length]
        if lasts.min() > high:
            break
        fits = np.flatnonzero((lasts >= low) & (lasts <= high))
        if len(fits):
            held = (bytes_before[length:] - bytes_before[:-length])[fits]
            at = int(np.argmax(held / lasts[fits]))
            best = max(best, _rate(int(held[at]), int(lasts[fits][at]), timescale))
    return best


def buffer_time(track: Track, starts: NDArray[np.uint32], sizes: NDArray[np.uint64], rate: int) -> float:
    """Seconds to wait before playing so that at ``rate`` (bit/s) no sample comes late, wherever one starts.

    ``starts``: sample numbers of the segments, shape (n + 1,); ``sizes``: their bytes, shape (n,).
    """
    firsts = starts[:-1].astype(np.int64)
    payload = np.cumsum(track.sizes, dtype=np.float64)
    ends = payload[starts[1:].astype(np.int64) - 1]
    heads = np.cumsum(sizes.astype(np.float64) - np.diff(ends, prepend=0.0))
    due = track.dts() / track.timescale
    # How much later than its decoding time each sample is there, if the first byte of all comes at time 0: then the
    # worst of each segment, then the worst of each segment and all after it.
    late = payload * (8 / rate) - due
    worst = np.maximum.reduceat(late, firsts) + heads * (8 / rate)
    worst = np.maximum.accumulate(worst[::-1])[::-1]
    begun = (np.cumsum(sizes, dtype=np.float64) - sizes) * (8 / rate) - due[firsts]
    return float((worst - begun).max())


def _rate(size: int, ticks: int, timescale: int) -> int:
    return -(-8 * size * timescale // max(ticks, 1))
