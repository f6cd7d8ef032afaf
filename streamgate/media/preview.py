"""The beginning of a presentation, as a presentation of its own.

It is built of the same tracks without the samples behind its end: what is not in a sample table is in no segment, no
playlist, no bit rate and no duration either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from streamgate.media import presentation
from streamgate.media.inputs import Limits, TextInput, TrackInput
from streamgate.media.presentation import Presentation, Rendition
from streamgate.native.samples import Track


def build(inputs: Sequence[TrackInput], texts: Sequence[TextInput], limits: Limits, seconds: float) -> Presentation:
    """The first ``seconds`` of what :func:`streamgate.media.presentation.build` makes of the same; raises as it does.

    It ends at the last boundary of segments that is no later, but never before the end of the first segment.
    """
    whole = presentation.build(inputs, texts, limits)
    end = end_of(whole, seconds)
    offered = {id(r.track): r for r in (*whole.video, *whole.audio)}
    shown = []
    for given in inputs:
        rendition = offered.get(id(given.track))
        count = _samples(rendition, end) if rendition is not None else 0
        if count:
            shown.append(replace(given, track=first(given.track, count), identity=_marked(given.identity, count)))
    read = []
    for text in texts:
        zero = whole.begin if text.from_start else whole.shift
        last = int((end - zero) * 1000)
        cues = tuple(replace(cue, end=min(cue.end, last)) for cue in text.cues if cue.start < last)
        if cues:
            read.append(replace(text, cues=cues, identity=_marked(text.identity, last)))
    return presentation.build(shown, read, limits)


def end_of(whole: Presentation, seconds: float) -> Fraction:
    """Where the first ``seconds`` end, on the shifted clock, in seconds."""
    cut = (whole.video or whole.audio)[0]
    times = [Fraction(int(at), cut.timescale) for at in cut.times[1:]]
    behind = [at for at in times if at > whole.begin] or times[-1:]
    fitting = [at for at in behind if at - whole.begin <= Fraction(seconds).limit_denominator(1_000_000)]
    return fitting[-1] if fitting else behind[0]


def first(track: Track, count: int) -> Track:
    """``track`` with its first ``count`` samples alone, of which there must be so many."""
    used = track.entries[track.entries_used[0]]
    ranges = track.ranges(0, count)
    sizes = np.array(track.sizes[:count], np.uint64)
    # The ranges hold all samples in order, one behind the other.
    before, ends = np.cumsum(sizes) - sizes, np.cumsum(ranges[:, 1])
    within = np.minimum(np.searchsorted(ends, before, side="right"), len(ranges) - 1)
    return Track.from_samples(
        id=track.id,
        handler=track.handler,
        timescale=track.timescale,
        entries=(used,),
        sizes=sizes,
        deltas=track.deltas(0, count),
        offsets=track.composition_offsets(0, count),
        syncs=None if track.all_sync else track.keyframes[track.keyframes < count],
        positions=ranges[within, 0] + before - (ends - ranges[:, 1])[within],
        first_dts=track.first_dts,
        language=track.language,
        name=track.name,
        width=track.width,
        height=track.height,
        matrix=track.matrix,
        edits=track.edits,
        enabled=track.enabled,
    )


def _samples(rendition: Rendition, end: Fraction) -> int:
    """How many samples of a rendition belong in front of ``end``: whole segments of video, sound frame by frame."""
    ticks = -(-end.numerator * rendition.timescale // end.denominator)
    if rendition.kind == "video":
        return int(rendition.starts[min(int(np.searchsorted(rendition.times, ticks)), rendition.segments)])
    return int(np.searchsorted(rendition.track.dts() + rendition.shift, ticks))


def _marked(identity: bytes, count: int) -> bytes:
    """An identity that no whole has, so that names and entity tags are others."""
    return identity + b"~preview%d" % count
