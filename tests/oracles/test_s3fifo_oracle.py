"""The cache index against libCacheSim, whose authors S3-FIFO is from."""

from __future__ import annotations

import libcachesim
import numpy as np
import pytest
from numpy.typing import NDArray

from streamgate.native.s3fifo import Cache

# Both run the same algorithm. libCacheSim computes the queues' sizes in floating point, and hashes of its own decide
# which ghosts it holds for one and the same: a few requests of a long trace may end differently.
TOLERANCE = 0.001
REQUESTS = 60_000
OBJECTS = 20_000


def zipf(exponent: float, seed: int) -> NDArray[np.int64]:
    weights = 1 / np.arange(1, OBJECTS + 1) ** exponent
    return np.random.default_rng(seed).choice(OBJECTS, REQUESTS, p=weights / weights.sum())


def scans(seed: int) -> NDArray[np.int64]:
    """Zipf, and between it titles that somebody watches from end to end, once."""
    popular = zipf(1.0, seed).reshape(-1, 2000)
    once = np.arange(popular.shape[0] * 1000).reshape(-1, 1000) + OBJECTS
    return np.concatenate([popular, once], axis=1).ravel()


def drift(seed: int) -> NDArray[np.int64]:
    """What is popular changes with every tenth of the trace."""
    return (zipf(1.0, seed) + np.repeat(np.arange(10) * 1500, REQUESTS // 10)) % OBJECTS


TRACES = {"zipf 0.8": zipf(0.8, 1), "zipf 1.1": zipf(1.1, 2), "scans": scans(3), "drift": drift(4)}


@pytest.mark.parametrize("sizes", ["equal", "mixed"])
@pytest.mark.parametrize("capacity", [1_000_000, 20_000_000])
@pytest.mark.parametrize("name", TRACES)
def test_hits_and_evictions_are_libcachesims(name: str, capacity: int, sizes: str) -> None:
    trace = TRACES[name]
    count = int(trace.max()) + 1
    size = np.full(count, 4096) if sizes == "equal" else np.random.default_rng(5).integers(200, 60_000, count)
    oracle = libcachesim.S3FIFO(cache_size=capacity, hashpower=12)
    cache: Cache[int] = Cache(capacity)
    hits = differ = 0
    for number in trace.tolist():
        theirs = oracle.get(libcachesim.Request(obj_id=number + 1, obj_size=int(size[number])))
        key = b"%d" % number
        ours = cache.get(key) is not None
        if not ours:
            cache.put(key, number, int(size[number]))
        hits += theirs
        differ += theirs != ours
    assert differ <= TOLERANCE * len(trace)
    assert abs(cache.hits - hits) <= TOLERANCE * len(trace)
    assert len(cache) == pytest.approx(oracle.get_n_obj(), rel=0.01)
    assert cache.hits + cache.misses == len(trace)
