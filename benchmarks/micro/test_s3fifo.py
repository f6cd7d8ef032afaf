"""What a look-up and a replacement in the cache cost."""

from __future__ import annotations

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture

from streamgate.native.s3fifo import Cache

_KEYS = [b"/v/film-%d/v1080-3fa9c1d2e07b4a55/%d.m4s" % (n % 50, n) for n in range(20_000)]


def test_a_thousand_hits(benchmark: BenchmarkFixture) -> None:
    """5 000 objects, asked for by Zipf: larger than the processor's nearer caches."""
    cache: Cache[int] = Cache(5000 * 1024 * 1024)
    for number, key in enumerate(_KEYS[:5000]):
        cache.put(key, number, 65536)
    weights = 1 / np.arange(1, 5001)
    asked = [_KEYS[n] for n in np.random.default_rng(1).choice(5000, 1000, p=weights / weights.sum())]

    def call() -> None:
        get = cache.get
        for key in asked:
            get(key)

    benchmark(call)
    assert cache.misses == 0


def test_a_thousand_evictions(benchmark: BenchmarkFixture) -> None:
    cache: Cache[int] = Cache(5000 * 65536)
    for number, key in enumerate(_KEYS):
        cache.put(key, number, 65536)
    at = 0

    def call() -> None:
        nonlocal at
        for _ in range(1000):
            cache.put(_KEYS[at], at, 65536)
            at = (at + 7) % len(_KEYS)

    benchmark(call)
    assert len(cache) == 5000
