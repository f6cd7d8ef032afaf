"""Samples without a byte, as some recorders write them where nothing changed.

libav refuses a fragment that has one, and no decoder needs them: the sample before lasts longer instead.
"""

from __future__ import annotations

import numpy as np

from streamgate.native.samples import Track


def without_empty(track: Track) -> Track:
    """``track`` without its empty samples; the same object where it has none, only such, or
    several configurations (which are refused anyway)."""
    entries = {track.entries[n] for n in track.entries_used}
    if np.count_nonzero(track.sizes) in (0, track.samples) or len(entries) != 1:
        return track
    kept = np.flatnonzero(track.sizes)
    sizes, dts = track.sizes[kept], track.dts()[kept]
    ranges = track.ranges(0, track.samples)
    # Where each sample lies: the ranges hold all samples in order, one behind the other.
    before = np.cumsum(sizes, dtype=np.uint64) - sizes
    ends = np.cumsum(ranges[:, 1])
    within = np.searchsorted(ends, before, side="right")
    positions = ranges[within, 0] + before - (ends - ranges[:, 1])[within]
    end = track.first_dts + track.duration
    return Track.from_samples(
        id=track.id,
        handler=track.handler,
        timescale=track.timescale,
        entries=tuple(entries),
        sizes=sizes,
        deltas=np.diff(dts, append=end),
        offsets=track.composition_offsets()[kept],
        syncs=None if track.all_sync else np.flatnonzero(np.isin(kept, track.keyframes)),
        positions=positions,
        first_dts=int(dts[0]),
        language=track.language,
        name=track.name,
        width=track.width,
        height=track.height,
        matrix=track.matrix,
        edits=track.edits,
        enabled=track.enabled,
    )
