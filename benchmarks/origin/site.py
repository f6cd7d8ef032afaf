"""The hit ratio of a site of two nodes, by their own caches, on a trace by Zipf whose objects are replaced as time goes by.

A balancer sends each path to one node, so the site's memory holds each object once. The peer is one LRU of as many bytes:
what a single cache with the memory of both would do.
"""

from __future__ import annotations

import statistics
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Met, Row, interval
from benchmarks.origin.bench import NAME
from streamgate.native.s3fifo import Cache

PEER = "one LRU"
GOAL = 5.0  # points
NODES = 2
EXPONENT = 0.9
OBJECTS = 20_000
REQUESTS = 400_000
WARMUP = 100_000  # requests that fill the caches and do not count
CHURN = 0.02  # of the requests are preceded by a replacement: the object of a random rank goes, a new one has its rank
SIZES = (66_000, 250_000, 600_000, 1_200_000, 2_300_000)  # bytes: 4 s of sound, and of four rungs


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of the site's caches, as a ``part`` of all that can be asked for at once; ``workers`` have equal parts of a node's.

    The authors of S3-FIFO call a tenth large; what is much more than that leaves little to decide.
    """

    part: float
    workers: int = 1
    held: bool = True

    @property
    def case(self) -> str:
        told = f"site of {NODES} nodes, memory for {100 * self.part:.0f} % of the bytes"
        return told if self.workers == 1 else f"{told}, {self.workers} workers each"


MEMORIES = (Memory(0.01), Memory(0.1), Memory(0.1, workers=2, held=False), Memory(0.2, held=False))


@dataclass(frozen=True)
class Trace:
    """Requests in their order by number of object, and each object's path and size in bytes."""

    asked: Sequence[int]
    paths: Sequence[bytes]
    sizes: Sequence[int]
    catalogue: int  # bytes of the objects that there are at once, as the trace begins

    @classmethod
    def drawn(cls, seed: int, *, requests: int = REQUESTS, objects: int = OBJECTS, churn: float = CHURN) -> Trace:
        """A trace of its own for each ``seed``: the n-th most popular rank has a weight of n^-0.9."""
        random = np.random.default_rng(seed)
        weights = np.cumsum(np.arange(1, objects + 1, dtype=float) ** -EXPONENT)
        ranks = np.searchsorted(weights / weights[-1], random.random(requests))
        replaced = random.random(requests) < churn
        which = random.integers(0, objects, requests)
        asked = with_churn(ranks, replaced, which, objects)
        known = objects + int(replaced.sum())
        sizes = random.choice(SIZES, known)
        paths = [b"/v/title-%d/v540/%d.m4s" % divmod(number, 150) for number in range(known)]
        return cls(asked, paths, sizes.tolist(), int(sizes[:objects].sum()))


def with_churn(
    ranks: NDArray[np.intp], replaced: NDArray[np.bool_], which: NDArray[np.int64], objects: int
) -> list[int]:
    """The objects asked for: each rank's own until it is ``replaced``, at the place that ``which`` names, by a new one."""
    holder = list(range(objects))
    newest = objects
    asked = []
    for rank, new, place in zip(ranks.tolist(), replaced.tolist(), which.tolist(), strict=True):
        if new:
            holder[place] = newest
            newest += 1
        asked.append(holder[rank])
    return asked


def of_site(trace: Trace, capacity: int, *, workers: int = 1, warmup: int = WARMUP) -> float:
    """The part of the requests that the nodes' caches answer, with ``capacity`` bytes in all.

    Each path goes to one node by its hash, and there to any worker: connections, not paths, belong to workers.
    """
    room = capacity // (NODES * workers)
    caches: list[list[Cache[bool]]] = [[Cache(room) for _ in range(workers)] for _ in range(NODES)]
    seats = np.random.default_rng(0).integers(0, workers, len(trace.asked)).tolist()
    nodes = [crc32(path) % NODES for path in trace.paths]
    hits = 0
    for n, (number, seat) in enumerate(zip(trace.asked, seats, strict=True)):
        cache = caches[nodes[number]][seat]
        path = trace.paths[number]
        if cache.get(path) is None:
            cache.put(path, True, trace.sizes[number])
        else:
            hits += n >= warmup
    return hits / (len(trace.asked) - warmup)


def of_lru(trace: Trace, capacity: int, *, warmup: int = WARMUP) -> float:
    """The part of the requests that one LRU of ``capacity`` bytes answers."""
    held: OrderedDict[int, int] = OrderedDict()
    free = capacity
    hits = 0
    for n, number in enumerate(trace.asked):
        if number in held:
            held.move_to_end(number)
            hits += n >= warmup
            continue
        size = trace.sizes[number]
        if size > capacity:
            continue
        held[number] = size
        free -= size
        while free < 0:
            free += held.popitem(last=False)[1]
    return hits / (len(trace.asked) - warmup)


def run(*, runs: int) -> Iterator[Row]:
    """A row for each amount of memory; every run is a trace of its own."""
    pairs: dict[Memory, list[tuple[float, float]]] = {memory: [] for memory in MEMORIES}
    for seed in range(runs):
        trace = Trace.drawn(seed)
        for memory in MEMORIES:
            capacity = round(memory.part * trace.catalogue)
            ours = of_site(trace, capacity, workers=memory.workers)
            pairs[memory].append((ours, of_lru(trace, capacity)))
    for memory in MEMORIES:
        yield row(memory, pairs[memory])


def row(memory: Memory, pairs: Sequence[tuple[float, float]]) -> Row:
    """Points by which the site's hit ratio is above the LRU's; the goal is held against the whole interval of them."""
    points = [100 * (ours - theirs) for ours, theirs in pairs]
    low, high = interval(points) or (None, None)
    goal = GOAL if memory.held else None
    met: Met = None
    if goal is not None:
        met = "undecided"
        if low is not None and low >= goal:
            met = True
        elif high is not None and high < goal:
            met = False
    ratios = [f"{100 * statistics.median(side):.1f} %" for side in zip(*pairs, strict=True)]
    note = f"hit ratio {ratios[0]}, {PEER} {ratios[1]}; {REQUESTS - WARMUP} requests for {OBJECTS} objects by Zipf"
    return Row(
        NAME, memory.case, "hit ratio above the LRU's", "points", statistics.median(points), PEER, None, None,
        low, high, goal, None, met, len(pairs), note,
    )  # fmt: skip
