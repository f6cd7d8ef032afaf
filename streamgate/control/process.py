"""The control process of a node: started by the node's parent, told by it what to do, and replaced when it dies.

``python -m streamgate.control.process`` reads its :class:`Orders` from standard input. The listening socket is the parent's:
while this process is replaced, connections wait in its queue. Signals are the parent's business.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop
from aiohttp import web

from streamgate.control.auth.app import make_app
from streamgate.control.auth.service import Service
from streamgate.control.orders import Orders
from streamgate.core import logging
from streamgate.core.cells import HEAD, Cells, slot_of
from streamgate.core.channel import Channel, Message
from streamgate.core.config import load
from streamgate.core.lifecycle import raise_file_limit
from streamgate.core.settings import Settings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.storage.kv.events import Event

_log = logging.get_logger("streamgate.control")
_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
_FORGET_S = 10.0
_GARBAGE = 20_000, 20, 50
_BACKLOG = 1024  # as the parent opened it: of a Unix socket whoever finds no place is refused
_PUBLISH_S = 1.0
_STOP_S = 2.0  # unless the parent says otherwise


def main() -> int:
    """Run the process that standard input describes; returns the exit code."""
    for number in _IGNORED:
        # A handler and not SIG_IGN, which the processes that we start would inherit.
        signal.signal(number, lambda *_: None)
    orders = Orders.read(sys.stdin)
    for descriptor in orders.descriptors:
        os.set_inheritable(descriptor, False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_start(orders))


async def _start(orders: Orders) -> int:
    channel = await Channel.over(socket.socket(fileno=orders.control))
    try:
        raise_file_limit()
        settings = load(Path(f"/proc/self/fd/{orders.config}"), overrides=orders.overrides)
        stop_logging = logging.configure(settings.log)
        try:
            async with AsyncExitStack() as stack:
                await _serve(orders, settings, channel, stack)
            channel.send({"stopped": True, "cut": 0})
        finally:
            stop_logging()
    except StreamGateError as error:
        channel.send({"failed": {"code": error.code, "detail": error.detail}})
        return 1
    finally:
        await channel.close()
    return 0


async def _serve(orders: Orders, settings: Settings, channel: Channel, stack: AsyncExitStack) -> None:
    """Serve until the parent says stop, or goes away."""
    telemetry = Telemetry(cells=Cells(slot_of(orders.page, orders.slot)[HEAD:]) if orders.page >= 0 else None)
    service = await stack.enter_async_context(
        Service.open(settings, orders.root, Path(orders.store), lambda: channel.send({"news": True}), telemetry)
    )
    # Bodies are bounded by the application; nobody but the node's own processes is at this socket, so no access log.
    runner = web.AppRunner(make_app(service), access_log=None, handle_signals=False, shutdown_timeout=_STOP_S)
    stack.push_async_callback(runner.cleanup)
    await runner.setup()
    listening = socket.socket(fileno=orders.listening)
    await web.SockSite(runner, listening, backlog=_BACKLOG).start()
    stack.callback(asyncio.create_task(_forget(service)).cancel)
    stack.callback(asyncio.create_task(_publish(telemetry)).cancel)
    # What is there stays, and so do the sessions that are held: to look at them all for garbage, often, is for nothing.
    gc.freeze()
    gc.set_threshold(*_GARBAGE)
    channel.send({"prepared": True})
    channel.send({"ready": True})
    while (message := await channel.receive()) is not None and message["do"] != "stop":
        _obey(service, channel, message)
    if message is None:
        _log.error("the parent has gone")
    channel.send({"closed": True})


async def _forget(service: Service) -> None:
    while True:
        await asyncio.sleep(_FORGET_S)
        service.forget()


async def _publish(telemetry: Telemetry) -> None:
    while True:
        telemetry.publish()
        await asyncio.sleep(_PUBLISH_S)


def _obey(service: Service, channel: Channel, message: Message) -> None:
    match message["do"]:
        case "apply":
            for each in message["events"]:
                service.apply(Event(each["id"], each["type"], bytes.fromhex(each["subject"]), each["until"]))
            channel.send({"done": message["id"]})
        case "reopen":
            logging.reopen()


if __name__ == "__main__":
    sys.exit(main())
