"""A proxy between us and a service that breaks what passes through it, when a test says so.

Of TCP: latency, bandwidth, stalls, refused, cut and killed connections. With ``http=True`` it also reads requests and
answers: it counts them, and can answer itself or change what the service answers. It runs in a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import unquote

T = TypeVar("T")

_PIECE = 64 * 1024
_HEAD_LIMIT = 256 * 1024
_WAIT_S = 10.0


@dataclass
class Network:
    """What happens to answers of connections: seconds, bytes/s, bytes."""

    latency: float = 0.0
    bandwidth: float = 0.0
    stalled: bool = False
    cut_after: int | None = None
    """Of all answers of a connection; then it is reset."""


@dataclass
class Fault:
    """What happens to one answer. ``status``: the proxy's own, with ``headers`` and ``body``; else the service's is changed.

    ``headers`` are added or replaced, None: removed. ``resize`` appends so many bytes to the body, or drops its last
    ones; ``honest``: Content-Length tells. ``cut_after`` and ``stall_after`` count bytes of the body; a stall lasts
    until the client leaves. ``delay`` is in seconds before the head.
    """

    status: int = 0
    headers: dict[str, str | None] = field(default_factory=dict)
    body: bytes = b""
    resize: int = 0
    honest: bool = True
    cut_after: int | None = None
    stall_after: int | None = None
    delay: float = 0.0
    reset: bool = False
    """Reset the connection without an answer."""
    after_service: bool = False
    """Let the service do what it was asked for before its answer is lost or replaced."""


@dataclass
class Request:
    """One request that came through: ``range`` is (first, last or None), ``at`` by the monotonic clock."""

    method: str
    path: str
    range: tuple[int, int | None] | None
    headers: dict[str, str]
    at: float
    query: str = ""
    status: int = 0
    sent: int = 0


@dataclass
class _Rule:
    path: re.Pattern[str]
    method: str
    fault: Fault
    left: int | None
    when: Callable[[Request], bool]


class FaultProxy:
    """Listens on ``port`` of 127.0.0.1 in front of ``target``, a port there. Everything may be called from any thread."""

    def __init__(self, target: int, *, http: bool = False) -> None:
        self.target = target
        self.network = Network()
        self.requests: list[Request] = []
        self.connections = 0
        self.most_connections = 0
        self.accepted = 0
        self.most_requests = 0
        self.port = 0
        self._http = http
        self._busy = 0
        self._rules: list[_Rule] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self.accept()

    @property
    def endpoint(self) -> str:
        """As an address of HTTP."""
        return f"http://127.0.0.1:{self.port}"

    def accept(self) -> None:
        """Take connections (again), at the same port."""
        self._call(self._accept())

    def refuse(self) -> None:
        """Refuse connections from now on, and reset those there are."""
        self._call(self._refuse())

    def kill(self) -> None:
        """Reset all connections."""
        self._call(self._kill())

    def on(
        self,
        fault: Fault,
        path: str = "",
        *,
        method: str = "",
        times: int | None = None,
        when: Callable[[Request], bool] = lambda request: True,
    ) -> None:
        """Break answers to requests whose path ends in ``path``, the first ``times`` of them; earlier rules go first."""
        self._rules.append(_Rule(re.compile(f".*{re.escape(path)}"), method, fault, times, when))

    def heal(self) -> None:
        """Nothing is broken any more; stalled connections stay stalled until they are closed."""
        self._rules.clear()
        self.network = Network()
        self.accept()

    def forget(self) -> None:
        """Count anew."""
        self.requests.clear()
        self.most_connections = self.most_requests = self.accepted = 0

    def asked(self, path: str = "", method: str = "") -> list[Request]:
        """All requests whose path ends in ``path``."""
        return [r for r in self.requests if r.path.endswith(path) and (not method or r.method == method)]

    def ranges(self, path: str = "") -> list[tuple[int, int | None] | None]:
        """The byte ranges of all GET requests, in order; None: the whole object."""
        return [request.range for request in self.asked(path, "GET")]

    def close(self) -> None:
        """Stop, and reset what is open."""
        self._call(self._refuse())
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_WAIT_S)
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_WAIT_S)

    async def _accept(self) -> None:
        if self._server is None:
            listening = socket.socket()
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(("127.0.0.1", self.port))
            self._server = await asyncio.start_server(self._serve, sock=listening, limit=_HEAD_LIMIT, backlog=1024)
            self.port = listening.getsockname()[1]

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._kill()

    async def _kill(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.connections += 1
        self.most_connections = max(self.most_connections, self.connections)
        upstream: asyncio.StreamWriter | None = None
        self._writers.add(writer)
        try:
            source, upstream = await asyncio.open_connection("127.0.0.1", self.target, limit=_HEAD_LIMIT)
            self._writers.add(upstream)
            client = _Client(self, reader, writer)
            if self._http:
                while await self._exchange(client, source, upstream):
                    pass
            else:
                await _either(_pump(reader, upstream), client.pump(source))
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, _Reset):
            pass
        finally:
            self.connections -= 1
            for open_one in (writer, upstream):
                if open_one is not None:
                    self._writers.discard(open_one)
                    open_one.transport.abort()

    async def _exchange(self, client: _Client, source: asyncio.StreamReader, upstream: asyncio.StreamWriter) -> bool:
        """One request and its answer; whether the connection lives on."""
        head = await client.reader.readuntil(b"\r\n\r\n")
        request = _parsed(head)
        self.requests.append(request)
        fault = self._fault(request)
        self._busy += 1
        self.most_requests = max(self.most_requests, self._busy)
        try:
            if fault.delay:
                await _either(asyncio.sleep(fault.delay), client.gone())
            if (fault.status or fault.reset) and not fault.after_service:
                await client.drop_body(request, head)
                if fault.reset:
                    return False
                await client.answer(request, fault)
                return True
            upstream.write(head)
            length = int(request.headers.get("content-length", 0))
            client.body = asyncio.create_task(_carry(client.reader, upstream, length))
            try:
                answered = await self._answer(client, source, request, fault)
                await client.body
            finally:
                client.body.cancel()
            return answered
        finally:
            self._busy -= 1

    async def _answer(self, client: _Client, source: asyncio.StreamReader, request: Request, fault: Fault) -> bool:
        while True:
            head = await source.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            if status != 100:
                break
            await client.send(head)
        lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines[1:]}
        bodiless = request.method == "HEAD" or status in (204, 304)
        if headers.get("transfer-encoding") == "chunked" and not bodiless:
            body = _chunks(source)
        else:
            body = _exactly(source, 0 if bodiless else int(headers.get("content-length", 0)))
        if fault.after_service and (fault.status or fault.reset):
            async for _ in body:
                pass
            if not fault.reset:
                await client.answer(request, fault)
            return not fault.reset
        request.status = status
        changed = dict(fault.headers)
        if fault.resize and fault.honest and not bodiless:
            changed["content-length"] = str(int(headers["content-length"]) + fault.resize)
        kept = [line for line in lines[1:] if line.partition(":")[0].lower() not in {name.lower() for name in changed}]
        added = [f"{name}: {value}" for name, value in changed.items() if value is not None]
        await client.send("\r\n".join([lines[0], *kept, *added, "", ""]).encode("latin-1"))
        left = int(headers["content-length"]) + min(0, fault.resize) if fault.resize else None
        async for piece in body:
            sent = piece if left is None else piece[:left]
            left = None if left is None else left - len(sent)
            for limit, what in ((fault.cut_after, "cut"), (fault.stall_after, "stall")):
                if limit is not None and request.sent + len(sent) >= limit:
                    await client.send(sent[: limit - request.sent])
                    request.sent = limit
                    if what == "stall":
                        await client.gone()
                    raise _Reset
            await client.send(sent)
            request.sent += len(sent)
        if fault.resize > 0:
            await client.send(b"+" * fault.resize)
        return fault.resize == 0 or fault.honest

    def _fault(self, request: Request) -> Fault:
        for rule in self._rules:
            fits = rule.path.fullmatch(request.path) and rule.method in ("", request.method)
            if fits and rule.left != 0 and rule.when(request):
                if rule.left is not None:
                    rule.left -= 1
                return rule.fault
        return Fault()


class _Reset(Exception):
    """The connection ends without a word."""


class _Client:
    """The side of the proxy where faults of the network happen."""

    def __init__(self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._proxy = proxy
        self._writer = writer
        self._sent = 0
        self.body: asyncio.Task[None] | None = None

    async def send(self, data: bytes) -> None:
        """Send part of an answer, as the network is."""
        network = self._proxy.network
        if network.latency:
            await asyncio.sleep(network.latency)
        if network.stalled:
            await self.gone()
        if network.cut_after is not None and self._sent + len(data) > network.cut_after:
            self._writer.write(data[: max(0, network.cut_after - self._sent)])
            with contextlib.suppress(OSError):
                await self._writer.drain()
            raise _Reset
        step = max(1, int(network.bandwidth / 20)) if network.bandwidth else max(1, len(data))
        for at in range(0, len(data), step):
            piece = data[at : at + step]
            self._writer.write(piece)
            await self._writer.drain()
            if network.bandwidth:
                await asyncio.sleep(len(piece) / network.bandwidth)
        self._sent += len(data)

    async def pump(self, source: asyncio.StreamReader) -> None:
        """All that the service sends."""
        while data := await source.read(_PIECE):
            await self.send(data)

    async def gone(self) -> None:
        """Wait until the client has left; what it still says is dropped."""
        if self.body is not None and not self.body.done():
            await self.body
        while await self.reader.read(_PIECE):
            pass
        raise _Reset

    async def answer(self, request: Request, fault: Fault) -> None:
        """The proxy's own answer."""
        request.status = fault.status
        body = b"" if request.method == "HEAD" else fault.body
        headers = {"Content-Length": str(len(body)), **fault.headers}
        lines = [f"HTTP/1.1 {fault.status} Fault", *(f"{k}: {v}" for k, v in headers.items() if v is not None), "", ""]
        await self.send("\r\n".join(lines).encode("latin-1") + body)

    async def drop_body(self, request: Request, head: bytes) -> None:
        """Read what belongs to the request."""
        if "100-continue" not in request.headers.get("expect", "").lower():
            await self.reader.readexactly(int(request.headers.get("content-length", 0)))


def _parsed(head: bytes) -> Request:
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines}
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
    asked = (int(found[1]), int(found[2]) if found[2] else None) if found else None
    path, _, query = target.partition("?")
    return Request(method, unquote(path), asked, headers, time.monotonic(), query)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int) -> None:
    async for piece in _exactly(reader, length):
        writer.write(piece)
        await writer.drain()


async def _exactly(reader: asyncio.StreamReader, length: int) -> Any:
    while length:
        piece = await reader.read(min(length, _PIECE))
        if not piece:
            raise _Reset
        length -= len(piece)
        yield piece


async def _chunks(reader: asyncio.StreamReader) -> Any:
    """A chunked body as it is (RFC 9112 section 7.1)."""
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        yield line + await reader.readexactly(size + 2)
        if not size:
            return


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_PIECE):
        writer.write(data)
        await writer.drain()


async def _either(*works: Coroutine[Any, Any, None]) -> None:
    """Until the first has ended; raises what it raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def fault_proxy(target: int, *, http: bool = False) -> Iterator[FaultProxy]:
    """A proxy while the block lasts."""
    proxy = FaultProxy(target, http=http)
    try:
        yield proxy
    finally:
        proxy.close()
