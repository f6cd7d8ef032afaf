"""How often, how long, and where the rows are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.load import Load, Target
from benchmarks.peers.process import Server

NAME = "sessions"
WARMUP_S = 0.2


@dataclass(frozen=True)
class Bench:
    """``count``: sessions that are live, and revocations in the list. ``slices`` of a run, where a small difference is to be seen:
    pairs as close together as that see the same machine.
    """

    runs: int
    seconds: float
    connections: int
    count: int
    slices: int
    server: int = 0
    client: int = 1

    def hits(self, server: Server, targets: Sequence[Target], seconds: float | None = None) -> Load:
        """GETs, each connection always the same one: it is a viewer."""
        return Load(
            port=server.port,
            targets=targets,
            seconds=self.seconds if seconds is None else seconds,
            connections=self.connections,
            warmup=WARMUP_S,
            own=True,
            discard=True,
            core=self.client,
            watch=server.pids(),
        )

    def posts(
        self,
        server: Server,
        unix: str,
        targets: Sequence[Target],
        *,
        connections: int,
        headers: Sequence[str] = (),
        status: int = 200,
    ) -> Load:
        """POSTs over a Unix socket, in turn."""
        return Load(
            port=0,
            unix=unix,
            method="POST",
            targets=targets,
            seconds=self.seconds,
            connections=connections,
            warmup=WARMUP_S,
            headers=headers,
            status=status,
            core=self.client,
            watch=server.pids(),
        )
