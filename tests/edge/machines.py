"""Machines of a site in one process: each with a store, a feed, one worker, and its part in the site."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

from edge.control import Message
from edge.feed import Feed
from edge.freshness import Freshness
from edge.process import Process
from edge.site import Site
from streamgate.core.clock import steady
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.storage.kv.events import Event, Position
from streamgate.storage.kv.sqlite import SqliteStore
from streamgate.storage.kv.store import KeyValueStore
from tests.edge.test_feed import Worker


class Shared:
    """A shared feed that can be out of reach, or full."""

    def __init__(self, store: KeyValueStore) -> None:
        self.store = store
        self.away = self.full = False
        self.calls = 0

    async def adopt(self, events: list[Event]) -> int:
        self._check(self.full)
        return await self.store.adopt(events)

    async def events(self, after: Position | None = None, limit: int = 1000) -> tuple[list[Event], Position]:
        self._check(False)
        return await self.store.events(after, limit)

    async def drop(self, events: list[Event]) -> int:
        self._check(False)
        return await self.store.drop(events)

    async def prune(self) -> int:
        self._check(self.full)
        return await self.store.prune()

    async def close(self) -> None:
        await self.store.close()

    def _check(self, full: bool) -> None:
        self.calls += 1
        if self.away or full:
            raise StreamGateError("store_unavailable", "it is not there")


class Machine:
    """A node's parent: its store in ``folder``, one worker, and its part in the site."""

    def __init__(
        self,
        folder: Path,
        local: SqliteStore,
        shared: KeyValueStore,
        clock: Callable[[], float] = time.time,
        passed: Callable[[], float] = steady,
    ) -> None:
        self.folder = folder
        self.local = local
        self.shared = Shared(shared)
        self.worker = Worker()
        self.feed = Feed(local, lambda: cast(list[Process], [self.worker]), clock, passed)
        self.freshness = Freshness(30.0, passed)
        self.telemetry = Telemetry()
        self.said: list[Message] = []
        site = (local, self.shared, self.feed, self.freshness, self.telemetry, self.said.append, 0.05)
        self.site = Site(*site, clock, passed)

    async def turn(self) -> bool:
        done = await self.site.exchange()
        await self.feed.catch_up()
        return done

    @property
    def applied(self) -> list[bytes]:
        """The subjects of what the worker was told, in order."""
        return [event.subject for event in self.worker.told]

    async def written(self) -> list[bytes]:
        return [event.subject for event in (await self.local.events())[0]]

    async def end(self) -> None:
        await self.shared.close()
        await self.local.close()
