"""The cache index: what it keeps, and what it lets go."""

from __future__ import annotations

import gc
import sys
import weakref

import pytest

from streamgate.native.s3fifo import Cache


def test_one_hit_wonders_leave_and_favourites_stay() -> None:
    cache: Cache[int] = Cache(100_000)
    for _ in range(3):
        for number in range(60):
            if cache.get(b"favourite%d" % number) is None:
                cache.put(b"favourite%d" % number, number, 1000)
    for number in range(10_000):
        assert cache.put(b"once%d" % number, number, 1000)
    assert [cache.get(b"favourite%d" % number) for number in range(60)] == list(range(60))
    assert cache.bytes <= 100_000


def test_what_comes_back_soon_after_it_left_is_kept() -> None:
    cache: Cache[int] = Cache(10_000)
    for number in range(101):
        cache.put(b"%d" % number, number, 100)
    gone = next(b"%d" % number for number in range(101) if b"%d" % number not in cache)
    cache.put(gone, 1, 100)
    assert cache.keys()[-1] == gone, "it is in the main queue"


def test_what_is_large_must_be_asked_for_twice() -> None:
    cache: Cache[bytes] = Cache(1000)
    assert not cache.put(b"a", b"a", 500)
    assert cache.put(b"a", b"a", 500)
    assert not cache.put(b"b", b"b", 901) and not cache.put(b"b", b"b", 901)
    assert cache.keys() == [b"a"]


def test_replacing() -> None:
    cache: Cache[str] = Cache(1000)
    assert cache.put(b"a", "first", 50) and cache.put(b"a", "second", 80)
    assert (cache.get(b"a"), cache.bytes, len(cache)) == ("second", 80, 1)
    assert not cache.put(b"a", "third", 950)
    assert (cache.get(b"a"), cache.bytes, len(cache)) == (None, 0, 0)


def test_keys_are_bytes_of_any_kind() -> None:
    cache: Cache[int] = Cache(10**9)
    keys = [bytes([first]) * length for length in range(40) for first in (0, 255)]
    for number, key in enumerate(keys):
        assert cache.put(key, number, 10)
    assert cache.get(b"") == 1, "the later one of two that are equal"
    assert all(cache.get(key) == number for number, key in enumerate(keys) if key)


def test_many_objects_and_removals() -> None:
    cache: Cache[int] = Cache(10**9)
    for number in range(50_000):
        cache.put(b"key %d" % number, number, 100)
    for number in range(0, 50_000, 3):
        assert cache.remove(b"key %d" % number)
    assert not cache.remove(b"key 0")
    assert all((cache.get(b"key %d" % number) is None) == (number % 3 == 0) for number in range(50_000))
    cache.clear()
    assert (len(cache), cache.bytes, cache.keys()) == (0, 0, [])


class Value:
    """Something whose end can be seen."""


def test_values_live_as_long_as_they_are_kept() -> None:
    cache: Cache[Value] = Cache(1000)
    value = Value()
    seen = weakref.ref(value)
    key = b"a key of its own" + bytes(1)
    before = sys.getrefcount(key)
    cache.put(key, value, 10)
    del value
    gc.collect()
    assert seen() is not None and cache.get(key) is seen()
    cache.remove(key)
    assert seen() is None and sys.getrefcount(key) == before
    cache.put(key, Value(), 10)
    seen = weakref.ref(found) if (found := cache.get(key)) is not None else seen
    del found, cache
    assert seen() is None and sys.getrefcount(key) == before


class Meddler:
    """A value that uses the cache when it goes."""

    def __init__(self, cache: Cache[object], key: bytes) -> None:
        self.cache, self.key = cache, key

    def __del__(self) -> None:
        self.cache.put(self.key, b"from the grave", 60)
        self.cache.get(self.key)


def test_values_may_use_the_cache_when_they_go() -> None:
    cache: Cache[object] = Cache(1000)
    for number in range(200):
        cache.put(b"%d" % (number % 50), Meddler(cache, b"%d" % (number % 7)), 60)
        assert 0 < cache.bytes <= 1000
    cache.clear()


def test_who_is_told_of_an_eviction_may_put() -> None:
    told: list[bytes] = []

    def evicted(key: bytes, value: int) -> None:
        told.append(key)
        if value:
            cache.put(key, 0, 99)

    cache: Cache[int] = Cache(1000, evicted)
    for number in range(100):
        cache.put(b"%d" % number, 1, 99)
        assert cache.bytes <= 1000 and len(cache.keys()) == len(set(cache.keys())) == len(cache)
    assert told and len(told) == cache.evictions


def test_errors_of_who_is_told_reach_the_caller() -> None:
    def evicted(key: bytes, value: int) -> None:
        raise RuntimeError("no")

    cache: Cache[int] = Cache(1000, evicted)
    with pytest.raises(RuntimeError):
        for number in range(20):
            cache.put(b"%d" % number, 1, 99)
    assert cache.bytes <= 1000 and len(cache) == len(cache.keys())


@pytest.mark.parametrize("size", [0, -1, 2**63, 2**70])
def test_sizes_out_of_bounds(size: int) -> None:
    cache: Cache[int] = Cache(1000)
    with pytest.raises(ValueError):
        cache.put(b"a", 1, size)
    if size:
        with pytest.raises(ValueError):
            Cache(size)
    assert len(cache) == 0


def test_none_is_no_value() -> None:
    cache: Cache[int | None] = Cache(1000)
    with pytest.raises(TypeError):
        cache.put(b"a", None, 1)
