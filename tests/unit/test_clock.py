"""Clocks that no setting of the wall clock confuses."""

from __future__ import annotations

import subprocess
import sys

from streamgate.core.clock import PatientClock, Setbacks, steady


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def both(seconds: float, *clocks: Clock) -> None:
    for clock in clocks:
        clock.now += seconds


def test_it_follows_small_steps_at_once() -> None:
    wall, passed = Clock(1000.0), Clock(5.0)
    now = PatientClock(wall, passed)
    both(10, wall, passed)
    wall.now += 0.9
    assert now() == 1010.9
    wall.now -= 0.5
    assert now() == 1010.4


def test_a_leap_back_counts_at_once() -> None:
    wall, passed = Clock(1000.0), Clock(5.0)
    now = PatientClock(wall, passed)
    wall.now -= 600
    assert now() == 400
    # And what puts it right again is a leap ahead.
    wall.now += 600
    assert now() == 400


def test_a_leap_ahead_counts_when_it_has_stood() -> None:
    wall, passed = Clock(1000.0), Clock(5.0)
    now = PatientClock(wall, passed, patience=3600)
    wall.now += 86_400
    assert now() == 1000
    both(3599, wall, passed)
    assert now() == 4599
    both(1, wall, passed)
    assert now() == 1000 + 86_400 + 3600
    both(10, wall, passed)
    assert now() == wall.now


def test_a_leap_ahead_that_is_taken_back_never_counted() -> None:
    wall, passed = Clock(1000.0), Clock(5.0)
    now = PatientClock(wall, passed, patience=3600)
    for _ in range(3):
        wall.now += 86_400
        assert now() == passed.now + 995
        both(1800, wall, passed)
        wall.now -= 86_400
        assert now() == wall.now


def test_who_sets_it_back_is_noticed_once() -> None:
    wall, passed = Clock(1000.0), Clock(5.0)
    set_back = Setbacks(wall, passed)
    both(10, wall, passed)
    assert not set_back()
    wall.now += 3600
    assert not set_back(), "that is ahead"
    wall.now -= 3600
    assert set_back() and not set_back()
    wall.now -= 0.9
    assert not set_back(), "put right, as happens all the time"


def test_steady_time_is_the_same_in_all_processes() -> None:
    program = "from streamgate.core.clock import steady; print(steady())"
    before = steady()
    told = float(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
    assert before < told < steady()
