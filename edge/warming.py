"""Warm-up of a title: one worker has everything of it made and stored, while no viewer waits, and tells how far it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import cast

from aiohttp import web
from multidict import CIMultiDict

from edge import media, storing
from edge.assets import Opened
from edge.context import Context
from edge.control import Message
from edge.filling import Result, fill
from edge.following import path_of
from edge.node import Node
from edge.routes import Target
from edge.tiers.tier import Terms
from edge.titles import objects
from edge.warm_orders import Order, Progress
from streamgate.core.logging import get_logger
from streamgate.errors import StreamGateError

_LOOK_S = 0.05
_TELL_S = 0.2
# After so many segments in a row that failed the rest would fail as well.
_HOPELESS = 16
_log = get_logger("edge.warming")


class _Unsent:
    """What stands in for the request where nobody sent one."""

    method = "GET"
    headers: CIMultiDict[str] = CIMultiDict()
    protocol = None


class Warming:
    """The warm-ups of ``node``, to be used in its event loop; ``tell`` is called with a number and how far that one is."""

    def __init__(self, node: Node, tell: Callable[[int, Message], None]) -> None:
        self._node = node
        self._tell = tell
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, number: int, order: Order) -> None:
        """Warm a title; ``number`` is what it is called by."""
        task = asyncio.ensure_future(_WarmUp(self._node, order, lambda told: self._tell(number, told)).run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End those that still go on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _WarmUp:
    def __init__(self, node: Node, order: Order, tell: Callable[[Message], None]) -> None:
        self._node = node
        self._order = order
        self._tell = tell
        self._progress = Progress(order.asset)
        self._under_way = 0
        self._unlucky = 0

    async def run(self) -> None:
        progress, began, ended = self._progress, time.monotonic(), "stopping"
        telling = asyncio.ensure_future(self._tell_on(began))
        try:
            ended = await self._all()
        except StreamGateError as error:
            ended, progress.detail = error.code, error.detail
        except Exception:
            _log.exception("a warm-up failed", asset=self._order.asset)
            ended = "internal"
        finally:
            telling.cancel()
            progress.ended, progress.seconds = ended, time.monotonic() - began
            self._tell(progress.message())
            _log.info("a warm-up has ended", asset=self._order.asset, ended=ended, objects=progress.done)

    async def _tell_on(self, began: float) -> None:
        while True:
            await asyncio.sleep(_TELL_S)
            self._progress.seconds = time.monotonic() - began
            self._tell(self._progress.message())

    async def _all(self) -> str:
        """Make everything; why it ended."""
        opened = await self._node.assets.open(self._order.asset)
        order, made = self._order, opened.asset.presentation
        targets = await self._node.pool.run(objects, made, order.asset, order.renditions, order.manifests, order.limit)
        self._progress.objects = len(targets)
        waiting = iter(targets)
        async with asyncio.TaskGroup() as group:
            jobs = [
                group.create_task(self._work(waiting, opened)) for _ in range(self._node.settings.prefetch.warm_jobs)
            ]
        return max(job.result() for job in jobs) or "done"

    async def _work(self, waiting: Iterator[Target], opened: Opened) -> str:
        """Make one after another; why it ended before all were made, or ""."""
        for target in waiting:
            while self._busy():
                await asyncio.sleep(_LOOK_S)
            if self._node.health.state not in ("ready", "starting"):
                return "stopping"
            self._under_way += 1
            try:
                result, size = await self._one(target, opened)
            except StreamGateError as error:
                self._unlucky += 1
                self._progress.failed[error.code] += 1
                self._node.telemetry.count("warmed", result="failed")
                if self._unlucky >= _HOPELESS:
                    return error.code
            else:
                self._unlucky *= target.route.name not in media.CUT
                setattr(self._progress, result, getattr(self._progress, result) + 1)
                self._progress.bytes += size if result != "dropped" else 0
                self._node.telemetry.count("warmed", result=result)
            finally:
                self._under_way -= 1
                self._progress.done += 1
        return ""

    def _busy(self) -> bool:
        """Whether viewers wait for what they asked for."""
        node = self._node
        viewers = node.tiers.filling - self._under_way
        return node.health.state == "ready" and (
            node.pool.queued > 0 or viewers >= max(1, node.settings.edge.threads - 1) or not node.budget.ample(0)
        )

    async def _one(self, target: Target, opened: Opened) -> tuple[Result, int]:
        node, path = self._node, path_of(target)
        scope = "public" if target.asset.encode() in node.gate.open else "private"
        if target.route.name in media.CUT:
            entry = media.build(target, opened, node.settings.edge)
            return await fill(node, path, entry, Terms(scope, target.route.name)), entry.size
        opened = opened if target.route.immutable else await node.assets.open(target.asset)
        ctx = Context(
            cast(web.Request, _Unsent()), node, path=path, key=path, scope=scope, target=target, opened=opened
        )
        await storing.lookup(ctx)
        if ctx.entry is not None:
            return "present", ctx.entry.size
        ctx.entry = await storing.make(ctx)
        if not ctx.tier:
            await storing.store(ctx)
        return ("present" if ctx.tier else "fetched" if ctx.stored else "dropped"), ctx.entry.size
