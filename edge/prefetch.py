"""Prefetch: the segments that a viewer will ask for next are put into the tiers while nobody waits for anything else.

It follows what is asked for, and is never more than some segments ahead of that: where a viewer goes, it ends. Each is made
by the same flights as a viewer's, so that whoever comes meanwhile follows it, and nothing is made twice.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass

from edge import media
from edge.assets import Opened
from edge.context import Context
from edge.entries import Entry
from edge.filling import fill
from edge.following import FOLLOWED, following, path_of
from edge.node import Node
from edge.routes import Target
from edge.tiers.tier import Terms
from streamgate.core.logging import get_logger
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError

# How often it is looked whether viewers still wait for something.
_LOOK_S = 0.05
# What comes after a segment is planned once in so many seconds, however many ask for it, or find it; of so many it is known.
_AFTER_MISS_S = 10.0
_AFTER_HIT_S = 60.0
_TRIGGERS = 4096
_MOST_WAITING = 256
_log = get_logger("edge.prefetch")


@dataclass(frozen=True, slots=True)
class Wish:
    """An object to be fetched ``until`` then (s of the loop's clock), on these terms."""

    key: str
    entry: Entry
    terms: Terms
    until: float


class Prefetch:
    """Looks at what viewers were answered with. To be used in the event loop of ``node``."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._settings = node.settings.prefetch
        self._triggers: OrderedDict[str, float] = OrderedDict()
        self._wishes: deque[Wish] = deque()
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._plans: set[asyncio.Task[None]] = set()
        self._bytes = 0
        self._credit = float(self._settings.bytes_per_second)
        self._credited = 0.0
        self._timer: asyncio.TimerHandle | None = None
        # One thread is left to viewers.
        self._threads = max(1, node.settings.edge.threads - 1)
        self._jobs = min(self._settings.jobs, self._threads)

    async def close(self) -> None:
        """Forget what waits. What is under way is a flight, and ends with the others."""
        self._drop()
        if self._timer is not None:
            self._timer.cancel()
        tasks = [*self._plans, *self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def answered(self, ctx: Context) -> None:
        """A request was answered outside of the native path: what was fetched ahead was of use, and more may be."""
        target, entry = ctx.target, ctx.entry
        if target is None or entry is None or target.route.name not in FOLLOWED or ctx.code:
            return
        if self._node.prefetched.take(ctx.key):
            # If it has gone from the tiers by now, it was for nothing.
            _count(self._node.telemetry, "used" if ctx.tier or ctx.collapsed else "wasted", entry.size)
        if self._settings.sources == "none" or ctx.aborted or ctx.request.method != "GET" or not self._idle():
            return
        now = asyncio.get_running_loop().time()
        again = _AFTER_HIT_S if ctx.tier else _AFTER_MISS_S
        if now - self._triggers.get(ctx.key, -again) < again or not self._node.tiers.disk.writable:
            return
        self._triggers[ctx.key] = now
        self._triggers.move_to_end(ctx.key)
        if len(self._triggers) > _TRIGGERS:
            self._triggers.popitem(last=False)
        plan = asyncio.ensure_future(self._plan(target, ctx.opened, ctx.scope))
        self._plans.add(plan)
        plan.add_done_callback(self._plans.discard)

    async def _plan(self, target: Target, opened: Opened | None, scope: str) -> None:
        """Wish for what comes after ``target``."""
        node = self._node
        try:
            # What the disk had was given away without its asset.
            opened = opened or await node.assets.open(target.asset)
            if self._settings.sources == "remote" and not opened.asset.remote:
                return
            found = await node.pool.run(self._entries, target, opened)
        except StreamGateError:
            return
        until = asyncio.get_running_loop().time() + self._settings.patience
        waiting = {wish.key for wish in self._wishes}
        for next_one, entry in found:
            key = path_of(next_one)
            if key not in waiting and key not in self._under_way and not node.prefetched.has(key):
                self._wishes.append(Wish(key, entry, Terms(scope, next_one.route.name), until))
        while len(self._wishes) > _MOST_WAITING:
            self._dropped(self._wishes.popleft())
        self._go_on()

    def _entries(self, target: Target, opened: Opened) -> list[tuple[Target, Entry]]:
        """What comes after ``target``, yet to be made; blocking."""
        found = []
        for each in following(opened.asset.presentation, target, self._settings.ahead, self._settings.neighbours):
            try:
                found.append((each, media.build(each, opened, self._node.settings.edge)))
            except StreamGateError:  # there is no such segment
                continue
        return found

    def _go_on(self) -> None:
        """Begin what may begin now, or look again a little later."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._idle():
            self._drop()
        while self._wishes and len(self._under_way) < self._jobs:
            if self._wishes[0].until <= loop.time():
                self._dropped(self._wishes.popleft())
                continue
            if not self._may(self._wishes[0].entry.size, loop.time()):
                self._timer = loop.call_later(_LOOK_S, self._go_on)
                return
            self._begin(self._wishes.popleft())

    def _idle(self) -> bool:
        """Whether the node has nothing better to do for good: it serves, and has memory left."""
        return self._node.health.state == "ready" and self._node.budget.ample(0)

    def _may(self, size: int, now: float) -> bool:
        """Whether ``size`` more bytes may be fetched now: no viewer's request waits, and the budgets have room."""
        rate = self._settings.bytes_per_second
        self._credit = min(float(rate), self._credit + (now - self._credited) * rate) if self._credited else float(rate)
        self._credited = now
        viewers = self._node.tiers.filling - len(self._under_way)
        if self._node.pool.queued or viewers >= self._threads:
            return False
        fits = not self._bytes or self._bytes + size <= self._settings.bytes_in_flight
        return fits and self._credit > 0

    def _begin(self, wish: Wish) -> None:
        size = wish.entry.size
        self._bytes += size
        self._credit -= size
        task = self._under_way[wish.key] = asyncio.ensure_future(self._fetch(wish))

        def ended(_: object) -> None:
            del self._under_way[wish.key]
            self._bytes -= size
            self._go_on()

        task.add_done_callback(ended)

    async def _fetch(self, wish: Wish) -> None:
        node = self._node
        result: str = "failed"
        # Before it is there: a viewer may come while it is being made.
        node.prefetched.add(wish.key, wish.entry.size)
        try:
            result = await fill(node, wish.key, wish.entry, wish.terms)
        except StreamGateError as error:
            _log.debug("a segment could not be fetched ahead", key=wish.key, code=error.code)
        except Exception:
            _log.exception("a segment could not be fetched ahead")
        if result != "fetched":
            node.prefetched.take(wish.key)
        _count(node.telemetry, result, wish.entry.size)

    def _drop(self) -> None:
        while self._wishes:
            self._dropped(self._wishes.popleft())

    def _dropped(self, wish: Wish) -> None:
        _count(self._node.telemetry, "dropped", wish.entry.size)


def _count(telemetry: Telemetry, result: str, size: int) -> None:
    telemetry.count("prefetches", result=result)
    telemetry.count("prefetch_bytes", size, result=result)
