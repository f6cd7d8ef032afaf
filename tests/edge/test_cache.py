"""Memory has its bounds."""

from __future__ import annotations

import pytest

from edge.cache import Budget, EntryCache
from edge.entries import Entry
from streamgate.errors import StreamGateError


def entry(size: int) -> Entry:
    return Entry("text/plain", "tag", "no-cache", bytes(size))


def test_the_least_recently_used_makes_room() -> None:
    cache = EntryCache(40 * 1024)
    for name in "abcdefgh":
        cache.put(name, entry(4096 - 1024))
    assert cache.get("a") is not None
    cache.put("i", entry(4096 - 1024))
    cache.put("j", entry(4096 - 1024))
    assert cache.bytes == 40 * 1024
    cache.put("k", entry(4096 - 1024))
    assert cache.get("b") is None
    assert cache.get("a") is not None
    assert cache.bytes == 40 * 1024 and len(cache) == 10


def test_replacing_counts_once() -> None:
    cache = EntryCache(40 * 1024)
    cache.put("a", entry(100))
    cache.put("a", entry(200))
    assert cache.bytes == 1024 + 200


def test_what_is_too_large_is_not_kept() -> None:
    cache = EntryCache(40 * 1024)
    cache.put("a", entry(5 * 1024))
    assert cache.get("a") is None and cache.bytes == 0


def test_nothing_is_kept_without_memory() -> None:
    cache = EntryCache(0)
    cache.put("a", entry(1))
    assert cache.get("a") is None


def test_budget() -> None:
    budget = Budget(100)
    with budget.hold(60), budget.hold(40):
        assert budget.held == 100
        with pytest.raises(StreamGateError) as caught, budget.hold(1):
            pass
        assert caught.value.code == "overloaded"
    assert budget.held == 0


def test_a_single_large_body_passes() -> None:
    budget = Budget(100)
    with budget.hold(1000):
        assert budget.held == 1000
    assert budget.held == 0
