"""How a ratio is measured: interleaved pairs, their median, and a 95 % interval that asks nothing of the distribution."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import comb
from pathlib import Path
from typing import Literal

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a benchmark. ``ratio`` above 1 is better for us; ``low`` and ``high`` bound it with 95 % confidence."""

    benchmark: str
    case: str
    metric: str
    unit: str
    ours: float
    peer: str | None
    peer_value: float | None
    ratio: float | None
    low: float | None
    high: float | None
    goal: float | None
    aim: float | None
    met: bool | Literal["undecided"] | None
    runs: int

    def plain(self) -> dict[str, object]:
        """The row as the JSON object that ``--json`` prints."""
        return asdict(self)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The narrowest pair of order statistics that holds the median with at least 95 % confidence.

    Below six values no pair does; then the extremes are given, which hold it with less.
    """
    ordered = sorted(values)
    n = len(ordered)
    best = 0
    for k in range(n // 2):
        outside = 2 * sum(comb(n, i) for i in range(k + 1)) / 2**n
        if 1 - outside >= CONFIDENCE:
            best = k
    return ordered[best], ordered[n - 1 - best]


def compare(
    benchmark: str,
    case: str,
    metric: str,
    unit: str,
    peer: str,
    pairs: Sequence[tuple[float, float]],
    *,
    goal: float | None = None,
    aim: float | None = None,
) -> Row:
    """A row out of pairs (ours, theirs) of a quantity of which less is better."""
    ratios = [theirs / ours for ours, theirs in pairs]
    low, high = interval(ratios)
    met: bool | Literal["undecided"] | None = None
    if goal is not None:
        met = True if low >= goal else False if high < goal else "undecided"
    return Row(
        benchmark,
        case,
        metric,
        unit,
        statistics.median(ours for ours, _ in pairs),
        peer,
        statistics.median(theirs for _, theirs in pairs),
        statistics.median(ratios),
        low,
        high,
        goal,
        aim,
        met,
        len(pairs),
    )


def interleave(ours: Callable[[], float], theirs: Callable[[], float], runs: int) -> list[tuple[float, float]]:
    """``runs`` pairs, the order within a pair alternating, after one run of each that does not count."""
    ours()
    theirs()
    pairs = []
    for n in range(runs):
        if n % 2:
            second = theirs()
            pairs.append((ours(), second))
        else:
            first = ours()
            pairs.append((first, theirs()))
    return pairs


def wall(call: Callable[[], object], repeat: int = 1) -> Callable[[], float]:
    """A measurement of ``call``: seconds of wall time a call, over ``repeat`` calls."""

    def measured() -> float:
        start = time.perf_counter()
        for _ in range(repeat):
            call()
        return (time.perf_counter() - start) / repeat

    return measured


def process_cpu(command: Sequence[str | Path], *, core: int | None = None, prepare: Callable[[], object] | None = None) -> float:
    """CPU seconds (user + system) of a whole process with its children; raises RuntimeError where it fails."""
    if prepare is not None:
        prepare()
    pin = (lambda: os.sched_setaffinity(0, {core})) if core is not None else None
    process = subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, preexec_fn=pin
    )
    assert process.stderr is not None
    complaint = process.stderr.read()
    process.stderr.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command[0]} failed ({process.returncode}): {complaint.decode(errors='replace')[-500:]}")
    return usage.ru_utime + usage.ru_stime
