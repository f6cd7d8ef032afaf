"""A worker: one process of a node, started by its parent and told by it what to do.

``python -m edge.worker`` reads its :class:`Orders` from standard input. Signals are the parent's business; should the
parent die, the worker closes its sockets, so that another server may listen there, and ends with the answers under way.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    # Imports leave no garbage: to look for it among all that they bring costs a tenth of a second now, and another at the end.
    gc.disable()

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import uvloop

from edge import tls
from edge.api import PREFIX, make_api
from edge.ceilings import share
from edge.clearing import Clearing
from edge.configuration import of_file
from edge.control import Channel, Message, message_to_event
from edge.cover import Cover
from edge.orders import Orders
from edge.roles import streaming
from edge.server import Server
from edge.shared import Page
from edge.warm_orders import Order
from edge.warming import Warming
from streamgate.core import logging
from streamgate.core.health import Health
from streamgate.core.lifecycle import raise_file_limit
from streamgate.core.settings import Settings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.storage.kv.events import Event
from streamgate.storage.kv.sqlite import SqliteStore

_log = logging.get_logger("edge.worker")
_TICK_S = 1.0
_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def main() -> int:
    """Run the worker that standard input describes; returns the exit code."""
    for number in _IGNORED:
        # A handler and not SIG_IGN, which the processes that we start would inherit.
        signal.signal(number, lambda *_: None)
    orders = Orders(**json.load(sys.stdin))
    for descriptor in orders.descriptors:
        os.set_inheritable(descriptor, False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_start(orders))


async def _start(orders: Orders) -> int:
    channel = await Channel.over(socket.socket(fileno=orders.control))
    try:
        raise_file_limit()
        settings = share(of_file(orders.config, orders.overrides), orders.workers)
        settings = settings.model_copy(update={"tls": tls.kept(settings.tls, orders.certificate, orders.key)})
        with _logging(settings):
            return await Worker(orders, settings, channel).run()
    except StreamGateError as error:
        channel.send({"failed": {"code": error.code, "detail": error.detail}})
        return 1
    finally:
        await channel.close()


class Worker:
    """The node of this process and what the parent tells it."""

    def __init__(self, orders: Orders, settings: Settings, channel: Channel) -> None:
        self._orders = orders
        self._channel = channel
        self._page = Page(orders.page)
        self._telemetry = Telemetry(cells=self._page.cells(orders.slot), node=self._page)
        self._health = Health()
        role, self._node = streaming(
            settings,
            orders.root,
            self._telemetry,
            self._health,
            orders.limits,
            replacing=orders.replacing,
            auth=orders.auth,
        )
        self._node.once.path = Path(orders.store)
        mounts = {PREFIX: make_api(self._node, orders.auth)} if orders.auth else None
        self._server = Server(self._node, [role], mounts)
        self._cover = Cover(self._server, orders.listening, orders.encrypted, orders.seat)
        self._ending: asyncio.Task[int] | None = None
        self._clearing = Clearing(self._node)
        self._warming = Warming(self._node, lambda number, told: channel.send({"told": told, "id": number}))
        self._clearings: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Serve until the parent says stop or goes away."""
        ticking = asyncio.create_task(self._tick())
        await self._read_events()
        await self._server.start()
        gc.freeze()  # what S3's clients are made of stays as well: no collection looks at it again
        self._clearing.start()
        self._channel.send({"prepared": True})
        while (message := await self._channel.receive()) is not None:
            self._obey(message)
        if self._ending is None:
            _log.error("the parent has gone")
            self._stop(self._node.settings.drain.deadline, idle=0.0, last=False)
        assert self._ending is not None
        await self._ending
        await self._clearing.close()
        ticking.cancel()
        return 0

    def _obey(self, message: Message) -> None:
        match message["do"]:
            case "apply":
                self._apply(message["id"], [message_to_event(event) for event in message["events"]])
            case "serve":
                self._server.accept(*self._cover.own)
                self._channel.send({"ready": True})
            case "cover" if self._ending is None:
                self._cover_for(message["seats"])
            case "site":
                self._node.feed.hear(message)
            case "auth":
                self._node.leasing.away = message["away"]
            case "warm":
                self._warming.begin(
                    message["id"], Order.of({k: v for k, v in message.items() if k not in ("do", "id")})
                )
            case "drain":
                self._health.state = "draining"
            case "stop":
                self._stop(message["deadline"], idle=message["idle"], last=message["last"])
            case "reopen":
                logging.reopen()

    def _apply(self, number: int, events: list[Event]) -> None:
        """Revocations, and what purges forbid to be looked up, are in force at once; it is done when nothing else is held."""
        for event in events:
            self._node.revocations.apply(event)
        self._node.leasing.apply(events)
        purges = self._clearing.mark(events)
        if not purges:
            self._channel.send({"done": number})
            return

        async def clear() -> None:
            await self._clearing.clear(purges)
            self._channel.send({"done": number})

        clearing = asyncio.create_task(clear())
        self._clearings.add(clearing)
        clearing.add_done_callback(self._clearings.discard)

    def _cover_for(self, seats: list[int]) -> None:
        self._cover.cover(seats)
        missing = f"{len(seats)} of {self._orders.workers} workers missing, the others take their connections"
        self._health.degraded = missing if seats else ""

    def _stop(self, deadline: float, *, idle: float, last: bool) -> None:
        if self._ending is None:
            self._cover.close()
            self._ending = asyncio.create_task(self._end(deadline, idle, last))

    async def _end(self, deadline: float, idle: float, last: bool) -> int:
        await self._warming.close()
        stopping = asyncio.create_task(self._server.stop(deadline, idle=idle, last=last))
        await self._server.closed.wait()
        self._channel.send({"closed": True})
        cut = await stopping
        self._telemetry.publish()
        self._channel.send({"stopped": True, "cut": cut})
        await self._channel.close()
        return cut

    async def _read_events(self) -> None:
        """What was revoked or purged before this process began is in force before it serves."""
        store = await SqliteStore.open(Path(self._orders.store))
        try:
            events, position = await store.events()
            while events:
                for event in events:
                    self._node.revocations.apply(event)
                    self._clearing.restore(event)
                events, position = await store.events(position)
        finally:
            await store.close()

    async def _tick(self) -> None:
        while True:
            self._page.beat(self._orders.slot)
            self._telemetry.publish()
            self._node.revocations.forget()
            self._node.purges.forget()
            await asyncio.sleep(_TICK_S)


@contextlib.contextmanager
def _logging(settings: Settings) -> Iterator[None]:
    stop = logging.configure(settings.log)
    try:
        yield
    finally:
        stop()


if __name__ == "__main__":
    gc.freeze()
    gc.enable()
    sys.exit(main())
