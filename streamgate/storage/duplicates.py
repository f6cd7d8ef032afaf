"""Sound and text that several sources of an asset carry alike: each rung of a ladder often brings its own copy.

A viewer could not tell them apart, so each is offered once: from the first source that has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from streamgate.media.inputs import TextInput, TrackInput
from streamgate.storage.objects.source import Source

# Codecs of a constant bit rate have frames of one size, whatever they sound like: so many of them are compared.
# Where the sizes vary, equal tables of them tell as much as any frame.
_PROBES = 16


def distinct_tracks(inputs: Sequence[TrackInput], sources: Sequence[Source]) -> list[TrackInput]:
    """``inputs`` without the sound that an earlier source has as well: the same frames at the same times.

    Reads a few frames of those whose sample tables are equal. Raises ``source_unreadable``.
    """
    kept: list[TrackInput] = []
    for given in inputs:
        twin = next((n for n, other in enumerate(kept) if _equal(given, other, sources)), None)
        if twin is None:
            kept.append(given)
        elif given.default:
            kept[twin] = replace(kept[twin], default=True)
    return kept


def distinct_texts(texts: Sequence[TextInput]) -> list[TextInput]:
    """``texts`` without those whose cues and description an earlier one has as well."""
    kept: dict[object, TextInput] = {}
    for given in texts:
        key = (given.cues, given.language, given.label, given.forced, given.from_start)
        first = kept.setdefault(key, given)
        if given.default and not first.default:
            kept[key] = replace(first, default=True)
    return list(kept.values())


def _equal(a: TrackInput, b: TrackInput, sources: Sequence[Source]) -> bool:
    if a.codec.kind != "audio" or a.source == b.source or _described(a) != _described(b):
        return False
    if not np.array_equal(a.track.sizes, b.track.sizes) or not np.array_equal(a.track.deltas(), b.track.deltas()):
        return False
    constant = bool((a.track.sizes == a.track.sizes[0]).all())
    probes = np.unique(np.linspace(0, a.track.samples - 1, _PROBES if constant else 1).astype(int)).tolist()
    return _frames(a, probes, sources) == _frames(b, probes, sources)


def _described(given: TrackInput) -> tuple[object, ...]:
    codec, track = given.codec, given.track
    times = (track.timescale, track.first_dts, track.samples, track.edits, given.movie_timescale)
    return (codec.string, codec.config, codec.channels, given.language, given.label, *times)


def _frames(given: TrackInput, numbers: Sequence[int], sources: Sequence[Source]) -> list[bytes]:
    ranges = [(int(offset), int(length)) for n in numbers for offset, length in given.track.ranges(n, n + 1)]
    return sources[given.source].look(ranges)
