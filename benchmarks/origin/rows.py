"""The rows of ``python -m benchmarks origin``, one after the other."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

import click

from benchmarks.measure import Row
from benchmarks.origin import cold, shared, site
from benchmarks.origin.bench import Bench, Store, started

LEAST_MINUTES = 3  # of the title: a segment for each connection
FROM_S3 = {"segment": cold.segment, "title": cold.title, "throughput": cold.throughput, "redis": shared.run}
CASES = (*FROM_S3, "site")


def run(*, runs: int, seconds: float, minutes: int | None = None, chosen: Sequence[str] = ()) -> Iterator[Row]:
    """The rows that were ``chosen``, or all; ``minutes`` shortens the title. Raises RuntimeError where a server answers wrongly."""
    if unknown := set(chosen) - set(CASES):
        raise click.BadParameter(
            f"no {', '.join(sorted(unknown))}; there are {', '.join(CASES)}", param_hint="--payload"
        )
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise RuntimeError("two cores are needed: one for the servers, one for the client")
    bench = Bench(runs, seconds, max(minutes or 10, LEAST_MINUTES), cores[0], cores[-1])
    os.sched_setaffinity(0, {cores[-1]})
    wanted = [key for key in CASES if not chosen or key in chosen]
    try:
        with contextlib.ExitStack() as stack:
            store: Store | None = None
            for key in wanted:
                if key in FROM_S3:
                    store = store or stack.enter_context(started(bench, cores))
                    yield from FROM_S3[key](store)
                else:
                    yield from site.run(runs=runs)
    finally:
        os.sched_setaffinity(0, cores)
