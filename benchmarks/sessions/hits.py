"""What sessions, leases and revocations cost a hit of 1 KB: the same build with them off, and with nothing revoked."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks import payloads
from benchmarks.load import Load, Target
from benchmarks.measure import Row
from benchmarks.payloads import Payload
from benchmarks.peers import ours as edge
from benchmarks.rounds import Contestant, Goals, contest
from benchmarks.sessions.bench import NAME, Bench
from streamgate.storage.kv.events import UID_BYTES, Event
from streamgate.storage.kv.sqlite import SqliteStore

SIZE = 1024
GOALS = Goals(0.95)
BAND = 0.98, 1.02
_DAY_S = 86_400
_ON = {"auth": {"enabled": True}, "tokens": {"without_session": False}}


def sessions(bench: Bench) -> Iterator[Row]:
    """Sessions, leases and revocations on, against off; the auth role's CPU is counted in."""
    payload = payloads.exact(SIZE, 2)
    with _node(payload, bench, on=True) as on, _node(payload, bench, on=False) as off:
        yield from contest(
            "1 KB, sessions on",
            _viewers(on, payload, bench, on=True).run,
            [Contestant("ours with sessions off", _viewers(off, payload, bench, on=False).run, rival=True)],
            GOALS,
            bench.runs,
            benchmark=NAME,
        )


def revoked(bench: Bench) -> Iterator[Row]:
    """A long list of revocations against an empty one."""
    payload = payloads.exact(SIZE, 2)
    with ExitStack() as stack:
        full = stack.enter_context(_node(payload, bench, on=True, prepare=lambda data: _revoke(data, bench.count)))
        empty = stack.enter_context(_node(payload, bench, on=True))
        sliced = replace(bench, seconds=bench.seconds / bench.slices)
        rows = contest(
            f"1 KB, {bench.count} revocations",
            _viewers(full, payload, sliced, on=True).run,
            [Contestant("ours with an empty list", _viewers(empty, payload, sliced, on=True).run, rival=True)],
            Goals(BAND[0], rate=False),
            bench.runs * bench.slices,
            benchmark=NAME,
        )
        for row in rows:
            yield row if row.goal is None else alike(row)


def alike(row: Row) -> Row:
    """A row whose goal is that there is no difference: met where the interval has 1 in it and is within BAND, missed where it has not."""
    if row.met == "void" or row.low is None or row.high is None:
        return row
    if not row.low <= 1 <= row.high:
        return replace(row, met=False)
    return replace(row, met=True if BAND[0] <= row.low and row.high <= BAND[1] else "undecided")


def _node(
    payload: Payload, bench: Bench, *, on: bool, prepare: Callable[[Path], None] | None = None
) -> AbstractContextManager[edge.Ours]:
    return edge.ours(payload.assets, bench.server, asset=payload.asset, settings=_ON if on else None, prepare=prepare)


def _viewers(server: edge.Ours, payload: Payload, bench: Bench, *, on: bool) -> Load:
    """The load of as many viewers as there are connections, each with a session, and a lease by now."""
    sessions = [server.session(payload.asset) if on else None for _ in range(bench.connections)]
    path, size = payload.paths[0], payload.sizes[0]
    load = bench.hits(server, [Target(f"/t/{server.mint(payload.asset, each)}{path}", size) for each in sessions])
    replace(load, warmup=0.0, seconds=0.5, watch=()).run()
    return load


def _revoke(data: Path, count: int) -> None:
    """Sessions that nobody has, revoked before the node starts."""
    until = int(time.time()) + _DAY_S
    events = [
        Event(0, "revoke.session", secrets.token_bytes(16), until, secrets.token_bytes(UID_BYTES)) for _ in range(count)
    ]

    async def write() -> None:
        store = await SqliteStore.open(data / "state.sqlite")
        try:
            await store.adopt(events)
        finally:
            await store.close()

    asyncio.run(write())
