"""So many sessions that are watched at once: what the auth role holds of them in memory, and how many leases a second it extends."""

from __future__ import annotations

import asyncio
import http.client
import json
import secrets
import socket
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from benchmarks.load import BUSY, Load, Report, Target
from benchmarks.measure import Row, compare
from benchmarks.peers import redis
from benchmarks.peers.auth import ASSET, Auth, auth
from benchmarks.rounds import RATE, cpu_per_request, told
from benchmarks.sessions.bench import NAME, Bench
from streamgate.access.sessions import Grant, Session, by_time
from streamgate.control.auth.ledger import session_key
from streamgate.storage.kv.redis import RedisStore
from streamgate.storage.kv.rows import Write

MEMORY_MB = 400.0
LEASES = 5000.0
BATCH = 1000  # pairs of a call, as many as an edge asks for at once
WORKERS = 3  # who ask at once
PATIENCE_S = 1.0  # with Redis, whose core is the client's
_LIFE_S = 14_400
_FIRST_S = 600.0  # in which all must have been asked for once
_PART = 5000

Pair = tuple[str, str]
"""A session and a network, as they are written in calls."""


def embedded(bench: Bench) -> Iterator[Row]:
    """With the machine's own store."""
    pairs, rows = sessions(bench.count)
    with auth(bench.server, rows=rows) as server:
        yield from _measured(bench, server, pairs, "live sessions", WORKERS)


def shared(bench: Bench) -> Iterator[Row]:
    """With the store of a site, where rows are read again for each call; one call at a time."""
    pairs, rows = sessions(bench.count)
    with redis.store(bench.client) as store:
        redis_settings = {"url": f"redis://127.0.0.1:{store.port}/0", "timeout": PATIENCE_S}
        with auth(bench.server, settings={"redis": redis_settings}) as server:
            asyncio.run(_fill(server, rows))
            yield from _measured(bench, server, pairs, "live sessions over Redis", 1)


def sessions(count: int) -> tuple[list[Pair], list[Write]]:
    """So many, each with a grant, an account, an entitlement and a network of its own; and their rows."""
    now = int(time.time())
    pairs, rows = [], []
    for n in range(count):
        network = f"{10 + (n >> 16)}.{n >> 8 & 255}.{n & 255}.0/24"
        account, entitlement = secrets.token_hex(16), secrets.token_hex(16)
        grant = Grant(secrets.token_bytes(16), account, (ASSET,), "allow", now, now + _LIFE_S).live((entitlement,))
        session = Session(
            secrets.token_bytes(16), grant.id, grant.epoch, ASSET, account, now, grant.cap, "path", (entitlement,),
            (network,), max_streams=3, max_networks=2,
        )  # fmt: skip
        pairs.append((session.id.hex(), network))
        rows += [
            Write(f"grant/{by_time(grant.id)}", grant.encode(), _LIFE_S),
            Write(session_key(session.id), session.encode(), _LIFE_S),
        ]
    return pairs, rows


def _measured(bench: Bench, server: Auth, pairs: Sequence[Pair], what: str, askers: int) -> Iterator[Row]:
    case = f"{len(pairs)} {what}"
    bodies = [call(pairs[at : at + BATCH]) for at in range(0, len(pairs), BATCH)]
    for body in (bodies[0], bodies[-1]):
        check(server, body)
    targets = [Target("/leases", body=body) for body in bodies]
    # A connection for each call, as edges have.
    load = replace(bench.posts(server, server.unix, targets, connections=askers), per_connection=1)
    first = _run(case, replace(load, warmup=0.0, seconds=_FIRST_S, requests=len(targets)))
    reports: list[Report] = []
    memory: list[float] = []
    for n in range(bench.runs):
        turn = n * len(targets) // bench.runs  # all of them in the end
        reports.append(_run(case, replace(load, targets=[*targets[turn:], *targets[:turn]])))
        memory.append(server.memory())
    limit = "the limit"
    yield compare(NAME, case, "memory", "MB", limit, [(each, MEMORY_MB) for each in memory], goal=1.0)
    void = statistics.median(report.busy for report in reports) > BUSY
    note = "; ".join(
        (
            *(("VOID: the client was the limit",) if void else ()),
            f"calls of {BATCH} over {askers} connections, each of {1e3 * statistics.median(map(cpu_per_request, reports)):.3g} ms CPU",
            f"when all were asked for the first time {BATCH * first.rate:.0f}/s",
            told(reports),
        )
    )
    rates = [(BATCH * RATE.of(report), LEASES) for report in reports]
    yield compare(NAME, case, "leases", "1/s", limit, rates, goal=1.0, more=True, void=void, note=note)


def call(pairs: Sequence[Pair]) -> str:
    return json.dumps({"node": "edge", "ask": [], "extend": pairs, "fresh": False}, separators=(",", ":"))


def check(server: Auth, body: str) -> None:
    """Ask once; raises RuntimeError where not all is granted."""
    asking = http.client.HTTPConnection("auth")
    asking.sock = socket.socket(socket.AF_UNIX)
    try:
        asking.sock.connect(server.unix)
        asking.request("POST", "/leases", body)
        answer = json.loads(asking.getresponse().read())
    finally:
        asking.close()
    if answer.get("refused") != {} or len(answer["granted"]) != len(json.loads(body)["extend"]):
        raise RuntimeError(f"not all leases are granted: {str(answer)[:300]}")


def _run(case: str, load: Load) -> Report:
    report = load.run()
    if report.failed or not report.requests:
        raise RuntimeError(f"{case}: {report.failed} calls failed; {report.first_error}")
    return report


async def _fill(server: Auth, rows: Sequence[Write]) -> None:
    store = await RedisStore.open(server.settings.redis)
    try:
        for at in range(0, len(rows), _PART):
            pipeline = store.client.pipeline(transaction=False)
            for each in rows[at : at + _PART]:
                pipeline.set(store.key(each.key), each.value, ex=_LIFE_S)
            await pipeline.execute()
    finally:
        await store.close()
