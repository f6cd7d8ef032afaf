"""A worker as its parent sees it: a process, the channel to it, and its slot on the page of counters."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Literal

from edge.control import Channel, Message
from edge.shared import Page
from streamgate.errors import StreamGateError

State = Literal["starting", "serving", "leaving", "ended"]
_WORKER = ("-m", "edge.worker")
_EXIT = {-number: name for name, number in vars(signal).items() if isinstance(number, signal.Signals)}


class Process:
    """One worker, or the process beside them. ``page`` gets its slot back when it ends."""

    def __init__(self, process: asyncio.subprocess.Process, channel: Channel, page: Page, slot: int) -> None:
        self.pid = process.pid
        self.slot = slot
        self.state: State = "starting"
        self.since = time.monotonic()
        self.closed = asyncio.Event()
        """Set when it accepts no more connections."""
        self.cut = 0
        self.on_serving: Callable[[], None] = lambda: None
        """Called when it has become one that serves."""
        self.on_news: Callable[[], None] = lambda: None
        """Called when it has written events into the store."""
        self._process = process
        self._channel = channel
        self._page = page
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked: dict[int, asyncio.Future[None]] = {}
        self._followed: dict[int, asyncio.Queue[Message | None]] = {}
        self._numbers = itertools.count()
        self._listening = asyncio.create_task(self._listen())
        self.ended = asyncio.create_task(self._end())
        """Ends with the process, with its exit code."""

    @classmethod
    async def start(
        cls, page: Page, orders: Callable[[int, int], tuple[bytes, list[int]]], command: Sequence[str] = _WORKER
    ) -> Process:
        """Start it; ``orders`` makes of its end of the channel and its slot what it is told, and lists what it inherits.

        Raises ``worker_failed`` where the system has no more processes or files.
        """
        slot = page.take()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                given, descriptors = orders(theirs.fileno(), slot)
                # -P: the folder that the server was started in is no place for modules. A new process, so new code.
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",
                    *(f"-W{option}" for option in sys.warnoptions),
                    *command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.DEVNULL,
                    pass_fds=descriptors,
                )
        except OSError as error:
            ours.close()
            page.free(slot)
            raise StreamGateError("worker_failed", str(error)) from error
        page.own(slot, process.pid)
        assert process.stdin is not None
        process.stdin.write(given)
        process.stdin.close()
        return cls(process, await Channel.over(ours), page, slot)

    async def ready(self) -> None:
        """Wait until it serves; raises what kept it from serving, or ``worker_failed``."""
        await asyncio.shield(self._ready)

    def tell(self, message: Message) -> None:
        """Tell it something that needs no answer."""
        self._channel.send(message)

    def leave(self, deadline: float, idle: float, *, last: bool) -> None:
        """Have it accept no more and end: see :meth:`edge.server.Server.stop`."""
        if self.state in ("starting", "serving"):
            self.state = "leaving"
            self.tell({"do": "stop", "deadline": deadline, "idle": idle, "last": last})

    async def ask(self, message: Message) -> None:
        """Tell it something and wait until it is done, or until there is nobody left to do it."""
        number = next(self._numbers)
        done = self._asked[number] = asyncio.get_running_loop().create_future()
        self.tell({**message, "id": number})
        if self.ended.done():
            done.cancel()
        try:
            await done
        except asyncio.CancelledError:
            if not done.cancelled():
                raise
        finally:
            del self._asked[number]

    async def follow(self, message: Message) -> AsyncIterator[Message]:
        """Tell it something, and hear how far that is until it has ``ended``, or until there is nobody left to do it."""
        number = next(self._numbers)
        heard = self._followed[number] = asyncio.Queue()
        self.tell({**message, "id": number})
        try:
            while not self.ended.done() and (told := await heard.get()) is not None:
                yield told
                if told["ended"]:
                    return
        finally:
            del self._followed[number]

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def _listen(self) -> None:
        while (message := await self._channel.receive()) is not None:
            match message:
                case {"prepared": True} if self.state == "starting":
                    # Whatever it was told before this it will have done before it serves.
                    self.state = "serving"
                    self.tell({"do": "serve"})
                    self.on_serving()
                case {"ready": True} if not self._ready.done():
                    self._ready.set_result(None)
                case {"failed": {"code": code, "detail": detail}} if not self._ready.done():
                    self._ready.set_exception(StreamGateError(code, detail))
                case {"done": number} if number in self._asked and not self._asked[number].done():
                    self._asked[number].set_result(None)
                case {"told": told, "id": number} if number in self._followed:
                    self._followed[number].put_nowait(told)
                case {"news": True}:
                    self.on_news()
                case {"closed": True}:
                    self.closed.set()
                case {"stopped": True, "cut": cut}:
                    self.cut = cut

    async def _end(self) -> int:
        code = await self._process.wait()
        self.state = "ended"
        # What it said last is still to be read.
        await self._listening
        await self._channel.close()
        self._page.free(self.slot)
        self.closed.set()
        for done in self._asked.values():
            done.cancel()
        for heard in self._followed.values():
            heard.put_nowait(None)
        if not self._ready.done():
            self._ready.set_exception(StreamGateError("worker_failed", f"it ended with {_EXIT.get(code, code)}"))
        # Nobody may be waiting.
        self._ready.exception()
        return code
