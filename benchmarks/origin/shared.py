"""What a node reads from the Redis of its site, against a bare server that does nothing else."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from benchmarks import payloads
from benchmarks.answers import ask, same
from benchmarks.load import Target
from benchmarks.measure import Row
from benchmarks.origin import bucket
from benchmarks.origin.bench import NAME, UNASKED, Store
from benchmarks.origin.cold import segments
from benchmarks.peers import redis
from benchmarks.peers.ours import Ours
from benchmarks.rounds import Contestant, Goals, contest

OBJECT = 64 * 1024  # bytes
OBJECTS = 64
CONNECTIONS = 64
LEAST = 0.99  # of ours that must come out of Redis; the rest is made anew
_PATIENCE_S = 10.0


def run(store: Store) -> Iterator[Row]:
    """What only Redis has, by a node that keeps nothing itself, against a GET of the same bytes."""
    title = store.put(bucket.opened(next(payloads.exact(OBJECT, OBJECTS, noise=True).assets.iterdir())))
    bench = store.bench
    with contextlib.ExitStack() as stack:
        shared = stack.enter_context(redis.store(bench.client))
        edge = {"cache_bytes": 0, "disk_bytes": 0}
        ours = stack.enter_context(store.ours(edge=edge, redis={"url": f"redis://127.0.0.1:{shared.port}/0"}))
        targets = segments(ours, title)
        told = _from_redis(ours, targets)
        redis.put(shared.port, {target.path: ask(ours.port, target.path).body for target in targets})
        headers = {name: value for name, value in told.items() if name.lower() not in UNASKED}
        theirs = stack.enter_context(redis.bare(shared.port, bench.server, headers=headers))
        note = ""
        for target in targets:
            note = same(ask(ours.port, target.path), ask(theirs.port, target.path), theirs.name)
        loads = [bench.load(server, targets, CONNECTIONS, once=False) for server in (ours, theirs)]
        before = (_hits(ours), ours.counted()[0])
        peer = Contestant(theirs.name, loads[1].run, note, rival=True)
        rows = list(contest("Redis-tier hit, 64 KB", loads[0].run, [peer], Goals(1.0), bench.runs, benchmark=NAME))
        part = (_hits(ours) - before[0]) / (ours.counted()[0] - before[1])
        yield from judged(rows, part)


def judged(rows: Sequence[Row], part: float) -> Iterator[Row]:
    """The rows, void where Redis gave too small a ``part`` of the answers: on a busy machine it may be late now and then."""
    told = f"{100 * part:.1f} % of ours out of Redis"
    for row in rows:
        yield replace(row, met="void" if part < LEAST else row.met, note=f"{told}; {row.note}" if row.note else "")


def _from_redis(server: Ours, targets: Sequence[Target]) -> Mapping[str, str]:
    """Ask for all until all come from Redis, where they are written behind the answers; the fields of such an answer."""
    limit = time.monotonic() + _PATIENCE_S
    while True:
        before = _hits(server)
        answers = [ask(server.port, target.path) for target in targets]
        if _hits(server) - before == len(answers):
            return answers[0].fields
        if time.monotonic() > limit:
            raise RuntimeError(f"not in Redis: {server.said()[-1000:]}")


def _hits(server: Ours) -> int:
    series: dict[str, float] = json.loads(server.admin("GET", "/counters"))
    return int(sum(n for name, n in series.items() if name.startswith("streamgate_tier_hits") and "redis" in name))
