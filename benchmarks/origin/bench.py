"""Where the rows are measured, and the S3 that they are measured on."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.load import Load, Target
from benchmarks.origin.bucket import Title
from benchmarks.peers import ours as edge
from benchmarks.peers.process import Server
from benchmarks.peers.seaweed import BUCKET, Seaweed, seaweed

NAME = "origin"
# What aiohttp sends by itself; all else that ours says its peers say too.
UNASKED = frozenset(("server", "date", "connection", "content-length"))

_REST_S = 0.3
_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Bench:
    """How often, how long, and where."""

    runs: int
    seconds: float
    minutes: int
    server: int = 0
    client: int = 1

    def load(self, server: Server, targets: Sequence[Target], connections: int, *, once: bool = True) -> Load:
        """The load of one run: each target ``once``, whichever connection is free, or for so many seconds."""
        return Load(
            port=server.port,
            targets=targets,
            seconds=60.0 if once else self.seconds,
            connections=connections,
            warmup=0.0 if once else 0.2,
            requests=len(targets) if once else None,
            discard=True,
            core=self.client,
            watch=server.pids(),
        )


@dataclass
class Store:
    """The S3 with what lies in it, and how ours is started on it."""

    s3: Seaweed
    bench: Bench
    known: set[str] = field(default_factory=set)

    def put(self, title: Title) -> Title:
        """Store ``title``, and read it once so that nobody is the first who does."""
        if title.key not in self.known:
            self.s3.put(title.key, title.file)
            self.known.add(title.key)
            for _ in self.s3.client.get_object(Bucket=BUCKET, Key=title.key)["Body"].iter_chunks(1 << 20):
                pass
        return title

    @contextlib.contextmanager
    def ours(self, **settings: Mapping[str, Any]) -> Iterator[edge.Ours]:
        """StreamGate as it comes, open to all, with nothing in its tiers, and ``settings`` by section laid over its own.

        Nothing is fetched ahead: what is asked for is cold, and whoever asks has the store to himself.
        """
        with edge.ours(
            f"s3://{BUCKET}",
            self.bench.server,
            asset="",
            gated=False,
            settings={"s3": {"endpoint": self.s3.endpoint}, "prefetch": {"sources": "none"}, **settings},
            environment=self.s3.environment,
        ) as server:
            rested(server)
            yield server


def rested(server: Server) -> None:
    """Wait until a server that has just started is done with that; raises RuntimeError where it never is."""
    limit = time.monotonic() + _PATIENCE_S
    before, _ = _work(server)
    while time.monotonic() < limit:
        time.sleep(_REST_S)
        now, running = _work(server)
        if now - before <= 1 and not running:
            return
        before = now
    raise RuntimeError(f"{server.name} has not come to rest in {_PATIENCE_S:.0f} s")


def _work(server: Server) -> tuple[int, bool]:
    """CPU time of its threads, in the kernel's hundredths of a second, and whether one runs or would like to (proc(5))."""
    told = []
    for pid in server.pids():
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # it has ended
                told.append((task / "stat").read_text().rpartition(")")[2].split())
    return sum(int(fields[11]) + int(fields[12]) for fields in told), any(fields[0] == "R" for fields in told)


@contextlib.contextmanager
def started(bench: Bench, cores: Sequence[int]) -> Iterator[Store]:
    """The S3, on all ``cores``: a store is another machine's business, and takes what both sides leave."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    with contextlib.ExitStack() as stack:
        try:
            s3 = stack.enter_context(seaweed(None))
        finally:
            os.sched_setaffinity(0, before)
        yield Store(s3, bench)
