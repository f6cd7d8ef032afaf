"""The warm-ups of a node, as its parent knows them: each is one worker's, and whoever asks for the same asset joins it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import asdict

from edge.control import Message
from edge.process import Process
from edge.warm_orders import Order, Progress
from streamgate.errors import StreamGateError

# Workers that it is handed to one after another, should they stop or die.
_TRIES = 3
_MOST = 8
# Who has waited so long for an asset to be opened hears that it goes on; before, it may hear of a proper error.
_LONG_S = 5.0


class _WarmUp:
    """How far one is, and who waits for news of it."""

    def __init__(self, order: Order) -> None:
        self.told = Progress(order.asset).message()
        self.news = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def hear(self, told: Message) -> None:
        self.told = told
        self.news.set()
        self.news = asyncio.Event()


class Warmups:
    """``processes`` gives the node's workers, ``draining`` whether it ends."""

    def __init__(self, processes: Callable[[], Iterable[Process]], draining: Callable[[], bool]) -> None:
        self._processes = processes
        self._draining = draining
        self._running: dict[str, _WarmUp] = {}

    async def warm(self, order: Order) -> AsyncIterator[Message]:
        """How far the warm-up is, again and again until it has ended; it goes on if nobody asks any more.

        One for the same asset that is under way already is joined, whatever of it that one warms.
        Raises ``overloaded`` where there are too many, ``stopping``, and what keeps it from beginning.
        """
        warmup = self._running.get(order.asset)
        if warmup is None:
            if self._draining():
                raise StreamGateError("stopping")
            if len(self._running) >= _MOST:
                raise StreamGateError("overloaded", f"{_MOST} warm-ups are under way")
            warmup = self._running[order.asset] = _WarmUp(order)
            warmup.task = asyncio.create_task(self._run(order, warmup))
            warmup.task.add_done_callback(lambda _: self._running.pop(order.asset, None))
        told_any = False
        while not warmup.told["ended"]:
            await warmup.news.wait()
            begun = warmup.told["objects"] or warmup.told["seconds"] > _LONG_S
            if begun and not warmup.told["ended"]:
                told_any = True
                yield warmup.told
        if not told_any and not warmup.told["objects"] and warmup.told["ended"] != "done":
            raise StreamGateError(warmup.told["ended"], warmup.told["detail"])
        yield warmup.told

    async def close(self) -> None:
        """Wait for nobody's news any more."""
        tasks = [warmup.task for warmup in self._running.values() if warmup.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, order: Order, warmup: _WarmUp) -> None:
        ended = "stopping"
        for _ in range(_TRIES):
            process = next((each for each in self._processes() if each.state == "serving"), None)
            if process is None or self._draining():
                break
            async for told in process.follow({"do": "warm", **asdict(order)}):
                ended, told["worker"] = told["ended"], process.pid
                # Another worker goes on where one had to stop.
                warmup.hear({**told, "ended": ""} if ended == "stopping" else told)
            if ended not in ("", "stopping"):
                return
        warmup.hear({**warmup.told, "ended": ended or "worker_failed"})
