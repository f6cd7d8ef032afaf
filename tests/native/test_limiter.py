"""The rate limiter: against a model, in memory shared by processes, and when its table is full."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.native.limiter import Limiter, room

SECOND = 1_000_000_000


def memory(entries: int = 64) -> bytearray:
    made = bytearray(room(entries))
    made[:16] = bytes(range(16))
    return made


def test_a_burst_then_the_rate() -> None:
    limiter = Limiter(memory(), rate=10, burst=3)
    assert [limiter.ask(b"a", 0) for _ in range(4)] == [0, 0, 0, SECOND // 10]
    assert limiter.ask(b"a", SECOND // 10 - 1) == 1
    assert limiter.ask(b"a", SECOND // 10) == 0
    assert limiter.ask(b"a", SECOND // 10) == SECOND // 10


def test_keys_are_counted_apart() -> None:
    limiter = Limiter(memory(), rate=1, burst=1)
    assert limiter.ask(b"a", 5) == 0
    assert limiter.ask(b"b", 5) == 0
    assert limiter.ask(b"a", 5) == SECOND


def test_refused_requests_cost_nothing() -> None:
    limiter = Limiter(memory(), rate=1, burst=1)
    limiter.ask(b"a", 0)
    for _ in range(1000):
        assert limiter.ask(b"a", 1) == SECOND - 1
    assert limiter.ask(b"a", SECOND) == 0


@given(
    rate=st.integers(1, 1000),
    burst=st.integers(1, 20),
    asked=st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.integers(0, SECOND)), max_size=60),
)
def test_like_a_bucket_of_exact_numbers(rate: int, burst: int, asked: list[tuple[bytes, int]]) -> None:
    limiter, now = Limiter(memory(), rate, burst), 0
    interval = limiter.interval
    levels: dict[bytes, tuple[Fraction, int]] = {}
    for key, later in asked:
        now += later
        tokens, since = levels.get(key, (Fraction(burst), now))
        tokens = min(Fraction(burst), tokens + Fraction(now - since, interval))
        admitted = tokens >= 1
        assert (limiter.ask(key, now) == 0) == admitted
        levels[key] = (tokens - 1 if admitted else tokens, now)


def test_a_full_table_forgets_who_was_quiet_longest() -> None:
    limiter = Limiter(memory(8), rate=1, burst=1)
    for number in range(8):
        assert limiter.ask(b"%d" % number, number) == 0
    assert limiter.ask(b"new", 9) == 0
    assert limiter.ask(b"7", 10) > 0
    assert limiter.ask(b"0", 11) == 0, "its place was taken, so it is counted anew"


def test_processes_count_together() -> None:
    fd = os.memfd_create("limits")
    os.ftruncate(fd, room(64))
    os.pwrite(fd, bytes(range(16)), 0)
    asking = (
        "import mmap, sys; from streamgate.native.limiter import Limiter\n"
        f"limiter = Limiter(mmap.mmap({fd}, {room(64)}), 1, 1000)\n"
        "print(sum(limiter.ask(b'viewer', 7) == 0 for _ in range(800)))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", asking], stdout=subprocess.PIPE, text=True, pass_fds=[fd])
        for _ in range(2)
    ]
    admitted = [int(process.communicate(timeout=30)[0]) for process in running]
    shared = Limiter(mmap.mmap(fd, room(64)), 1, 1000)
    os.close(fd)
    assert sum(admitted) == 1000
    assert shared.ask(b"viewer", 7) == SECOND


@pytest.mark.parametrize("size", [0, 64, 63, 64 + 16 * 8 * 3, room(8) + 1])
def test_memory_of_a_wrong_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="size"):
        Limiter(bytearray(size), 1, 1)


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (float("nan"), 1), (float("inf"), 1), (1, 0), (0.001, 10**9)])
def test_senseless_limits_are_refused(rate: float, burst: int) -> None:
    with pytest.raises(ValueError, match="rate"):
        Limiter(memory(), rate, burst)


def test_memory_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(BufferError):
        Limiter(bytes(room(8)), 1, 1)
