"""A 2 h track table and a one-minute file, made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import footage
from streamgate.native.samples import Track
from streamgate.storage.assets import Asset, discover, open_asset


@pytest.fixture(scope="session")
def title() -> Path:
    return footage.title(1)


@pytest.fixture(scope="session")
def asset(title: Path) -> Asset:
    return open_asset(discover(title)[0])


@pytest.fixture(scope="session")
def two_hours() -> Track:
    """216 000 pictures of 30 fps with B-frames, each alone in its chunk, as ffmpeg interleaves them."""
    count = 2 * 3600 * 30
    sizes = np.random.default_rng(1).integers(5_000, 40_000, count, dtype=np.uint32)
    positions = np.cumsum(sizes.astype(np.uint64) + 400) - sizes
    offsets = np.tile(np.array([1024, 2560, 1024, 0, 512], np.int32), count // 5)
    return Track.from_samples(
        timescale=15360,
        entries=[b"\0\0\0\x10avc1\0\0\0\0\0\0\0\1"],
        sizes=sizes,
        deltas=np.full(count, 512, np.uint32),
        offsets=offsets,
        syncs=np.arange(0, count, 60, dtype=np.uint32),
        positions=positions,
    )
