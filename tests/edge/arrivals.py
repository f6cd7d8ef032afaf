"""Clients that come by a schedule, one connection and one request each, and what became of every one of them.

The schedule is open-loop: how fast the server answers does not change who comes when. A client of the schedule who is late, for
the machine is busy, comes as soon as it can be; nobody is left out, and nothing ends before all have come who were due.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import uvloop

_PATIENCE_S = 60.0
_MOST = 4000  # at once: a server that answers nobody is told soon enough


@dataclass
class Arrivals:
    """``lost`` holds the ports of the clients that were not served: why, by port.

    At ``seconds`` after the beginning, the latest moment at which nobody was late, all of the schedule had ``started``; whom
    the schedule had to wait for longest came ``latest`` seconds late.
    """

    started: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    lost: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0
    latest: float = 0.0
    began: float = field(default_factory=time.monotonic)

    @property
    def rate(self) -> float:
        """Connections begun in a second, from the beginning to the latest moment at which nobody was late."""
        return self.started / self.seconds

    def all_came(self, moment: float) -> bool:
        """Whether all have come who were due at this moment (s, monotonic)."""
        return self.began + self.seconds >= moment

    def note(self, outcome: str, port: int) -> None:
        """Remember how it went."""
        self.outcomes[outcome] += 1
        if outcome != "ok":
            self.lost[port] = outcome


class _Client(asyncio.Protocol):
    def __init__(self, request: bytes, arrivals: Arrivals, ended: asyncio.Future[None]) -> None:
        self._request = request
        self._arrivals = arrivals
        self._ended = ended
        self._received = b""
        self._port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)
        self._port = stream.get_extra_info("sockname")[1]
        stream.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data

    def connection_lost(self, exc: Exception | None) -> None:
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not self._received:
            outcome = "reset before an answer" if exc else "ended before an answer"
        elif not end or f"content-length: {len(body)}".encode() not in head.lower():
            outcome = "cut"
        else:
            outcome = "ok" if head.startswith(b"HTTP/1.1 200 ") else head.partition(b"\r")[0].decode()
        if not self._ended.done():
            self._arrivals.note(outcome, self._port)
            self._ended.set_result(None)


async def _arrive(port: int, path: str, rate: float, arrivals: Arrivals, enough: threading.Event) -> None:
    loop = asyncio.get_running_loop()
    request = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
    under_way: set[asyncio.Task[None]] = set()

    async def one() -> None:
        ended: asyncio.Future[None] = loop.create_future()
        transport: asyncio.BaseTransport | None = None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                transport, _ = await loop.create_connection(
                    lambda: _Client(request, arrivals, ended), "127.0.0.1", port
                )
                await ended
        except TimeoutError:
            arrivals.note("not answered in time", 0)
        except OSError as error:
            arrivals.note(f"not connected: {error}", 0)
        finally:
            if transport is not None:
                transport.close()

    arrivals.began = time.monotonic()
    end = None
    while True:
        seconds = (end or time.monotonic()) - arrivals.began
        due = int(seconds * rate)
        arrivals.latest = max(arrivals.latest, seconds - (arrivals.started + 1) / rate)
        for _ in range(min(due - arrivals.started, _MOST - len(under_way))):
            arrivals.started += 1
            task = asyncio.create_task(one())
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        if arrivals.started == due:
            arrivals.seconds = seconds
            if end:
                break
        if enough.is_set():
            end = end or time.monotonic()
        await asyncio.sleep(0.005)
    if under_way:
        await asyncio.wait(under_way)


@contextlib.contextmanager
def arriving(port: int, path: str, rate: float = 500.0) -> Iterator[Arrivals]:
    """Clients come while the block runs; all of them have ended behind it."""
    arrivals, enough = Arrivals(), threading.Event()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_arrive(port, path, rate, arrivals, enough))

    thread = threading.Thread(target=run, name="arrivals")
    thread.start()
    try:
        yield arrivals
    finally:
        enough.set()
        thread.join()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
