"""The rows of ``python -m benchmarks sessions``, one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import click

from benchmarks.measure import Row
from benchmarks.sessions import hits, live, starts
from benchmarks.sessions.bench import Bench

CASES: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "hit": hits.sessions,
    "start": starts.run,
    "live": live.embedded,
    "redis": live.shared,
    "revoked": hits.revoked,
}


def run(
    *,
    runs: int,
    seconds: float,
    connections: int = 64,
    count: int = 100_000,
    slices: int = 8,
    chosen: Sequence[str] = (),
) -> Iterator[Row]:
    """The rows that were ``chosen``, or all; ``count`` sessions are live, and as many are revoked.

    Raises RuntimeError where a server answers wrongly.
    """
    if unknown := set(chosen) - set(CASES):
        raise click.BadParameter(
            f"no {', '.join(sorted(unknown))}; there are {', '.join(CASES)}", param_hint="--payload"
        )
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise RuntimeError("two cores are needed: one for the servers, one for the client")
    bench = Bench(runs, seconds, connections, count, slices, server=cores[0], client=cores[-1])
    os.sched_setaffinity(0, {cores[-1]})
    try:
        for key in chosen or CASES:
            yield from CASES[key](bench)
    finally:
        os.sched_setaffinity(0, cores)
