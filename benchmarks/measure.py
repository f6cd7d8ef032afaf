"""How a ratio is measured: interleaved pairs, their median, and a 95 % interval that asks nothing of the distribution."""

from __future__ import annotations

import mmap
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import comb
from pathlib import Path
from typing import Literal

CONFIDENCE = 0.95
_PIECE = 1 << 20
FEWEST = 6  # values of which the extremes hold the median with that confidence: 1 - 2 / 2**6 = 0.97

# Void: something was measured that is not what the row is about.
Met = bool | Literal["undecided", "void"] | None


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
    met: Met
    runs: int
    note: str = ""

    def plain(self) -> dict[str, object]:
        """The row as the JSON object that ``--json`` prints; what is void decides nothing."""
        told = asdict(self)
        del told["note"]
        return told | {"met": "undecided" if self.met == "void" else self.met}


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The narrowest pair of order statistics that holds the median with at least 95 % confidence.

    None below six values, where not even the extremes do.
    """
    ordered = sorted(values)
    n = len(ordered)
    if n < FEWEST:
        return None
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
    more: bool = False,
    void: bool = False,
    note: str = "",
) -> Row:
    """A row out of pairs (ours, theirs) of a quantity of which less is better, or with ``more`` more.

    A goal is met where the whole interval reaches it, missed where none of it does, and else undecided.
    """
    ratios = [ours / theirs if more else theirs / ours for ours, theirs in pairs]
    low, high = interval(ratios) or (None, None)
    met: Met = None
    if void:
        met = "void"
    elif goal is not None:
        met = "undecided"
        if low is not None and low >= goal:
            met = True
        elif high is not None and high < goal:
            met = False
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
        note,
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
    """A measurement of ``call``: seconds of wall time a call, the median over ``repeat`` calls one after the other.

    So with three or more the first, which finds caches and the allocator as others left them, does not decide,
    and neither does one during which the scheduler let somebody else run.
    """

    def measured() -> float:
        took = []
        for _ in range(repeat):
            start = time.perf_counter()
            call()
            took.append(time.perf_counter() - start)
        return statistics.median(took)

    return measured


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """This process on one core only, so that nothing moves its caches about."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def process_cpu(
    command: Sequence[str | Path], *, core: int | None = None, environment: Mapping[str, str] | None = None
) -> float:
    """CPU seconds (user + system) of a whole process with its children; raises RuntimeError where it fails."""
    words = [str(part) for part in command]
    if core is not None:
        words = ["taskset", "-c", str(core), *words]
    with subprocess.Popen(
        words,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    ) as process:
        assert process.stderr is not None
        complaint = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        told = complaint.decode(errors="replace")[-500:]
        raise RuntimeError(f"{command[0]} failed ({process.returncode}): {told}")
    return usage.ru_utime + usage.ru_stime


def warm_memory(size: int) -> None:
    """Touch ``size`` bytes of memory and give them back.

    The host of a virtual machine takes free memory away. Getting it back, page by page, can cost more than
    everything measured here, and falls on whoever happens to write first.
    """
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for offset in range(0, size, mmap.PAGESIZE):
            memory[offset] = 1


def from_disk(path: Path) -> None:
    """Have all of a file in the page cache as reading it from the disk leaves it there.

    What a muxer wrote stays cached in pieces as small as its writes, which are twice as dear to read.
    """
    with path.open("rb", buffering=0) as file:
        os.fsync(file)  # what is not on the disk yet would stay
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while file.read(_PIECE):
            pass


class Outputs:
    """Empty folders to write into, below ``base``, one a run.

    What the run before wrote is cut to nothing but not removed until all is over: ext4 without a journal looks at
    every inode freed in the last minutes whenever a file is made, so that cleaning up would be charged to the next.
    """

    def __init__(self, base: Path) -> None:
        self._base = base
        self._made = 0

    def fresh(self) -> Path:
        """A new empty folder; the contents of the previous one are gone."""
        last = self._base / str(self._made)
        for path in last.rglob("*"):
            if path.is_file():
                os.truncate(path, 0)
        self._made += 1
        folder = self._base / str(self._made)
        folder.mkdir()
        return folder
