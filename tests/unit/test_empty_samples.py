"""Samples without a byte: libav refuses fragments that have one."""

from __future__ import annotations

import numpy as np
import pytest

from streamgate.media.empty_samples import without_empty
from streamgate.native.samples import Track
from tests.track_factory import audio_track, video_track


def with_empty(empty: list[int]) -> Track:
    """Ten samples, three contiguous ones each, of which those in ``empty`` have no bytes."""
    sizes = np.arange(1, 11) * 10
    sizes[empty] = 0
    chunk = np.arange(10) // 3
    before = np.cumsum(sizes) - sizes
    positions = before + chunk * 1000 - before[chunk * 3]
    return Track.from_samples(
        timescale=1000,
        entries=[b"entry"],
        sizes=sizes,
        deltas=np.arange(100, 110),
        offsets=np.arange(10),
        syncs=[0, 4, 7],
        positions=positions,
        first_dts=5000,
        edits=[(0, 5000, 1 << 16)],
        width=640.0,
    )


@pytest.mark.parametrize("empty", [[0], [4], [9], [0, 1, 2, 3], [3, 4, 5], [1, 5, 8, 9]])
def test_the_sample_before_lasts_longer(empty: list[int]) -> None:
    track = with_empty(empty)
    kept = [n for n in range(10) if n not in empty]
    clean = without_empty(track)
    assert clean.samples == len(kept) and clean.sizes.tolist() == [(n + 1) * 10 for n in kept]
    assert clean.dts().tolist() == track.dts()[kept].tolist()
    assert clean.first_dts + clean.duration == track.first_dts + track.duration
    assert clean.composition_offsets().tolist() == kept
    assert clean.keyframes.tolist() == [kept.index(n) for n in (0, 4, 7) if n in kept]
    assert clean.ranges(0, clean.samples).tolist() == track.ranges(0, 10).tolist()
    for at, n in enumerate(kept):
        assert clean.ranges(at, at + 1).tolist() == track.ranges(n, n + 1).tolist()
    assert (clean.edits, clean.width, clean.entries) == (track.edits, 640.0, (b"entry",))


def test_a_track_without_empty_samples_is_left_alone() -> None:
    for track in (video_track(), audio_track(), with_empty(list(range(10)))):
        assert without_empty(track) is track
