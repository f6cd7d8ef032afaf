"""``python -m benchmarks delivery``: cached and just-in-time delivery against nginx, Varnish and plain aiohttp."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import click

from benchmarks import footage, payloads
from benchmarks.answers import Answer, ask, same
from benchmarks.load import Load, Report, Target
from benchmarks.measure import Row
from benchmarks.payloads import Payload
from benchmarks.peers import ours as edge
from benchmarks.peers.certificate import Certificate, self_signed
from benchmarks.peers.nginx import OWN, nginx
from benchmarks.peers.plain import plain
from benchmarks.peers.process import Server
from benchmarks.peers.varnish import varnish
from benchmarks.rounds import NAME, Contestant, Goals, contest

KB = 1024
OBJECTS = 5000  # of the rows by Zipf: at 64 KB ten times what an L3 cache of 32 MB holds
EXPONENT = 0.9
CONNECTIONS = 64
WARMUP_S = 0.2
FLUSH_S = 5.0  # in which all that is buffered reaches the log
TUNED = "nginx, tuned for small files"
DEFAULT = "nginx secure_link"
# As long as nginx's Last-Modified and Connection, which ours does not send.
SPARED = frozenset(("x-content-type-options", "referrer-policy"))
UNASKED = frozenset(("server", "date", "connection", "content-type", "content-length"))  # what aiohttp sends by itself


@dataclass(frozen=True)
class Case:
    """A row of the table. ``ask`` makes the request's fields out of a first answer of the same server."""

    title: str
    payload: Callable[[int | None], Payload]  # by minutes, where it is out of a title
    goals: Goals
    zipf: float = 0.0
    status: int = 200
    ask: Callable[[Answer], list[str]] | None = None
    tls: bool = False
    tiers: bool = True  # ours keeps what it has made
    others: bool = True  # also the peers that decide no goal
    each: bool = False  # every object once, by a server that has just started

    @property
    def hot(self) -> bool:
        """Whether one object is all that is asked for."""
        return not self.zipf and self.tiers


def exact(size: int, count: int = 2) -> Callable[[int | None], Payload]:
    return lambda minutes: payloads.exact(size, count)


def title(kind: str) -> Callable[[int | None], Payload]:
    return lambda minutes: payloads.of_title(footage.title(minutes or 10), kind)


def _unchanged(answer: Answer) -> list[str]:
    return [f"If-None-Match: {next(value for name, value in answer.fields.items() if name.lower() == 'etag')}"]


def _one_byte(answer: Answer) -> list[str]:
    return ["Range: bytes=0-0"]


CASES = {
    "1k": Case("1 KB", exact(KB), Goals(1.4, 2.0)),
    "64k": Case("64 KB", exact(64 * KB), Goals(1.3, 1.7)),
    "500k": Case("500 KB", exact(500 * KB), Goals(1.0, 1.2)),
    "2m": Case("2 MB", exact(2048 * KB), Goals(0.95, 1.1)),
    "6m": Case("6 MB", exact(6144 * KB), Goals(0.9, 1.0)),
    "zipf": Case("64 KB, 5000 objects by Zipf", exact(64 * KB, OBJECTS), Goals(1.3, 1.7), zipf=EXPONENT),
    "tls": Case("500 KB, TLS 1.3", exact(500 * KB), Goals(1.0, 1.5), tls=True, others=False),
    "304": Case("304", exact(64 * KB), Goals(1.4, 2.0), status=304, ask=_unchanged, others=False),
    "range": Case("1-byte range", exact(64 * KB), Goals(1.4, 2.0), status=206, ask=_one_byte, others=False),
    "video": Case("miss, 2.3 MB video", title("video"), Goals(1 / 2.2, 1 / 1.5, rate=False), tiers=False, others=False),
    "audio": Case("miss, 66 KB audio", title("audio"), Goals(1 / 4, 1 / 2, rate=False), tiers=False, others=False),
    "fill": Case("miss that fills, 2.3 MB video", title("video"), Goals(), others=False, each=True),
}  # fmt: skip
PAYLOADS = (*CASES, "token")


@dataclass(frozen=True)
class Bench:
    """How long, how often, and where."""

    runs: int
    seconds: float
    minutes: int | None = None
    connections: int = CONNECTIONS
    server: int = 0
    client: int = 1

    def load(self, server: Server, targets: Sequence[Target], case: Case, headers: Sequence[str] = ()) -> Load:
        """The load of one run."""
        return Load(
            port=server.port,
            targets=targets,
            seconds=60.0 if case.each else self.seconds,
            connections=min(self.connections, 10) if case.each else self.connections,
            warmup=0.0 if case.each else WARMUP_S,
            zipf=case.zipf,
            headers=headers,
            status=case.status,
            tls=case.tls,
            each=case.each,
            # What arrives is counted in the kernel: copying it would make the client the slower one.
            discard=not case.tls,
            core=self.client,
            watch=server.pids(),
        )


def run(
    *,
    runs: int,
    seconds: float,
    minutes: int | None = None,
    connections: int = CONNECTIONS,
    chosen: Sequence[str] = (),
) -> Iterator[Row]:
    """The rows of the payloads that were ``chosen``, or of all; ``minutes`` shortens the title of the misses.

    Raises RuntimeError where a server answers wrongly.
    """
    if unknown := set(chosen) - set(PAYLOADS):
        raise click.BadParameter(
            f"no {', '.join(sorted(unknown))}; there are {', '.join(PAYLOADS)}", param_hint="--payload"
        )
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise RuntimeError("two cores are needed: one for the servers, one for the client")
    bench = Bench(runs, seconds, minutes, connections, server=cores[0], client=cores[-1])
    os.sched_setaffinity(0, {cores[-1]})
    try:
        for key in chosen or CASES:
            yield from (token(bench) if key == "token" else measure(CASES[key], bench))
    finally:
        os.sched_setaffinity(0, cores)


def measure(case: Case, bench: Bench) -> Iterator[Row]:
    """The rows of one case."""
    payload = case.payload(bench.minutes)
    with contextlib.ExitStack() as stack:
        certificate = stack.enter_context(self_signed()) if case.tls else None
        start = stack.enter_context
        ours = start(_ours(payload, bench, case, certificate))
        run_ours = _prepared(ours, payload, bench, case)
        told = _asked(ours, payload.paths[0], replace(case, ask=None, status=200)).fields
        peers = list(_peers(start, payload, bench, case, told, certificate))
        contestants = []
        for server, rival in peers:
            run = _prepared(server, payload, bench, case)
            contestants.append(Contestant(server.name, run, _compared(ours, server, payload, case), rival))
        if case.each:
            run_ours = _afresh(payload, bench, case)
        yield from contest(case.title, run_ours, contestants, case.goals, bench.runs)
        yield _all_on(ours, case)


def _all_on(server: edge.Ours, case: Case) -> Row:
    """Of the requests that ours has counted, the part that is in its log, which must be all; the note tells who answered."""
    limit = time.monotonic() + FLUSH_S
    while True:
        counted, native = server.counted()
        logged = server.logged()
        if logged >= counted or time.monotonic() > limit:
            break
        time.sleep(0.1)
    note = f"{counted} requests counted, {logged} logged, {100 * native / counted:.1f} % answered natively"
    part = logged / counted
    return Row(
        NAME, case.title, "logged", "of counted", part, None, None, None, None, None, 1.0, None, part >= 1, 1, note
    )


def _ours(
    payload: Payload, bench: Bench, case: Case, certificate: Certificate | None = None, *, gated: bool = True
) -> contextlib.AbstractContextManager[edge.Ours]:
    # Its peers have the kernel's page cache, into which all objects go.
    room = {"edge": {"cache_bytes": 2 * sum(payload.sizes)}} if case.zipf else {}
    return edge.ours(
        payload.assets,
        bench.server,
        asset=payload.asset,
        gated=gated,
        tiers=case.tiers,
        tls=certificate,
        settings=room,
    )


def _peers(
    start: Callable[[contextlib.AbstractContextManager[Server]], Server],
    payload: Payload,
    bench: Bench,
    case: Case,
    told: Mapping[str, str],
    certificate: Certificate | None,
) -> Iterator[tuple[Server, bool]]:
    """The peers of a case, started, and whether each decides the goal.

    They send the fields that ours has ``told`` and they do not send by themselves: no server wins by saying less.
    """
    root, core = payload.root, bench.server
    headers = {name: value for name, value in told.items() if name.lower() not in OWN | SPARED}
    if certificate is not None:
        for name, tuned, buffer in (
            ("nginx, ssl_buffer_size 16k", False, "16k"),
            ("nginx, ssl_buffer_size 4k", False, "4k"),
            (f"{TUNED}, ssl_buffer_size 16k", True, "16k"),
        ):
            server = nginx(root, core, name=name, tuned=tuned, headers=headers, tls=certificate, ssl_buffer=buffer)
            yield start(server), True
        return
    yield start(nginx(root, core, name=DEFAULT, headers=headers)), True
    yield start(nginx(root, core, name=TUNED, tuned=True, headers=headers)), True
    if not case.others:
        return
    origin = start(nginx(root, core, name="origin", checks=False, headers=headers)).port
    yield start(nginx(root, core, name="nginx proxy_cache", origin=origin)), False
    yield start(varnish(origin, core)), False
    everything = {name: value for name, value in told.items() if name.lower() not in UNASKED}
    yield start(plain(root, core, headers=everything)), False


def _compared(ours: Server, theirs: Server, payload: Payload, case: Case) -> str:
    """What is said of the heads, after some objects, first and last among them, were found the same."""
    note = ""
    # Of one hot object the others are cold, and a miss has a longer head.
    for n in [0] if case.hot else sorted({0, len(payload.paths) // 2, len(payload.paths) - 1}):
        pair = [_asked(server, payload.paths[n], case) for server in (ours, theirs)]
        note = same(pair[0], pair[1], theirs.name)
    return note


def _asked(server: Server, path: str, case: Case) -> Answer:
    fields = case.ask(ask(server.port, server.path(path), tls=case.tls)) if case.ask else []
    # The last of some: the head of a miss, or of a hit on disk, tells more than that of a hit in memory.
    answer = [ask(server.port, server.path(path), fields, tls=case.tls) for _ in range(4)][-1]
    if answer.status != case.status:
        raise RuntimeError(f"{server.name}: {answer.status} instead of {case.status} for {path}")
    return answer


def _prepared(server: Server, payload: Payload, bench: Bench, case: Case) -> Callable[[], Report]:
    """A run on a server whose caches are warm."""
    paths, sizes = (
        (payload.paths[:1], payload.sizes[:1]) if case.hot and not case.each else (payload.paths, payload.sizes)
    )
    fields = case.ask(ask(server.port, server.path(paths[0]), tls=case.tls)) if case.ask else []
    bodies = {200: sizes, 206: (1,) * len(sizes), 304: (0,) * len(sizes)}[case.status]
    targets = _targets(server, paths, bodies, divisible=case.each)
    load = bench.load(server, targets, case, fields)
    if case.tiers and not case.each:
        # All in turn, until each is where it will stay: made, found on disk, in memory; and then as they will be asked for.
        warm = replace(load, seconds=60.0, warmup=0.0, watch=())
        replace(warm, zipf=0.0, requests=4 * len(targets)).run()
        replace(warm, requests=4 * max(bench.connections, len(targets))).run()
    return lambda: replace(load, watch=server.pids()).run()


def _targets(server: Server, paths: Sequence[str], sizes: Sequence[int], *, divisible: bool) -> list[Target]:
    targets = [Target(server.path(path), size) for path, size in zip(paths, sizes, strict=True)]
    return targets[: len(targets) // 10 * 10] if divisible else targets


def _afresh(payload: Payload, bench: Bench, case: Case) -> Callable[[], Report]:
    """A run on a server of ours that has just started and knows the asset, but has made nothing of it."""

    def run() -> Report:
        with _ours(payload, bench, case) as server:
            init = f"{payload.paths[0].rsplit('/', 1)[0]}/init.mp4"
            ask(server.port, server.path(init))
            targets = _targets(server, payload.paths, payload.sizes, divisible=True)
            return bench.load(server, targets, case).run()

    return run


def token(bench: Bench) -> Iterator[Row]:
    """What the check of a fresh token adds to the CPU of a 1 KB hit: the same server, gated and open, every request
    with a token that its connection has not seen."""
    case = CASES["1k"]
    payload = case.payload(bench.minutes)
    with _ours(payload, bench, case) as gated, _ours(payload, bench, case, gated=False) as free:
        path, size = payload.paths[0], payload.sizes[0]
        fresh = [Target(f"/t/{gated.mint(payload.asset)}{path}", size) for _ in range(8192)]
        for server, targets in ((gated, fresh[:8]), (free, [Target(path, size)])):
            bench.load(server, targets, replace(case, each=False)).run()
        rows = contest(
            "1 KB, fresh tokens",
            bench.load(gated, fresh, case).run,
            [Contestant("ours with the check off", bench.load(free, [Target(path, size)], case).run, rival=True)],
            Goals(1 / 1.1, rate=False),
            bench.runs,
        )
        yield from rows
