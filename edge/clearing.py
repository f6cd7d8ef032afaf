"""Applying purges to what a process holds, and fetching again what was purged softly.

A hard purge takes its objects out of memory and, in the background, off the disk; a soft one has them served once more,
as stale, to whoever asks next, while they are made anew. Where that fails the old ones stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from edge import media, routes
from edge.entries import Entry
from edge.filling import fill
from edge.node import Node
from edge.purges import Purge, Verdict, assets_of, matcher
from edge.tiers.tier import Terms
from streamgate.core.logging import get_logger
from streamgate.errors import StreamGateError
from streamgate.storage.kv.events import Event

# Keys that are looked at in one turn of the event loop, and files in one task of a thread.
_KEYS = 2000
_FILES = 256
# Purges that each have a look at memory of their own.
_EACH = 8
_EVERYTHING = Purge("prefix", "/v/", False, 0, "")
# Refreshes at once; who asks for more is served what there is, and asks again.
_REFRESHES = 8
_AGAIN_S = 1.0
_log = get_logger("edge.clearing")


class Clearing:
    """To be used in the event loop of ``node``."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._purges = node.purges
        self._lock = asyncio.Lock()
        self._refreshes: dict[str, asyncio.Task[None]] = {}
        self._walk_wanted = asyncio.Event()
        self._walking: asyncio.Task[None] | None = None
        node.tiers.on_stale = self._refresh

    def start(self) -> None:
        """Begin what goes on for ever: objects on the disk that were purged are thrown out."""
        if self._node.tiers.disk.budget:
            self._walking = asyncio.ensure_future(self._walk())
            if self._purges:
                self._walk_wanted.set()

    async def close(self) -> None:
        """End it."""
        tasks: list[asyncio.Task[Any]] = [*self._refreshes.values(), *filter(None, [self._walking])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def restore(self, event: Event) -> None:
        """Know of what was purged before this process began."""
        self._purges.apply(event, live=False)

    def mark(self, events: Iterable[Event]) -> list[Purge]:
        """Take the purges among ``events`` into force for whatever is looked up, or kept, from now on; they are to be
        cleared as well."""
        purges = [purge for event in events if (purge := self._purges.apply(event)) is not None]
        if self._node.assets.origin is not None and not all(purge.soft for purge in purges):
            self._node.assets.origin.forget()
        return purges

    async def clear(self, purges: Sequence[Purge]) -> None:
        """Throw out, or mark, what is held; when this returns nothing made before is served as fresh."""
        async with self._lock:
            for purge in purges:
                self._look_anew(purge)
            if len(purges) <= _EACH:
                for purge in purges:
                    await self._clear(purge, matcher(purge, self._purges.tags))
            else:
                # Who was away hears of many at once: one look at everything is enough.
                for soft in (False, True):
                    if any(purge.soft == soft for purge in purges):
                        everything = replace(_EVERYTHING, soft=soft)
                        await self._clear(everything, partial(self._purged, "soft" if soft else "hard"))

    def _purged(self, verdict: Verdict, key: str) -> bool:
        found = self._node.tiers.memory.index.peek(key.encode())
        born = found.owner.born if found is not None and isinstance(found.owner, Entry) else 0.0
        return self._purges.since(key, born) == verdict

    def _look_anew(self, purge: Purge) -> None:
        assets = self._node.assets
        for asset in assets_of(purge, list(assets.listed), self._purges.tags):
            if purge.soft:
                assets.doubt(asset)
            else:
                assets.forget(asset)

    async def _clear(self, purge: Purge, meant: Callable[[str], bool]) -> None:
        node = self._node
        making = node.tiers.detach(meant)
        node.tiers.negatives.forget(meant)
        gone = await self._from_memory(purge, meant)
        if making:
            await asyncio.to_thread(node.tiers.disk.abandon, making)
        node.telemetry.count("purges", kind=purge.kind, mode="soft" if purge.soft else "hard")
        node.telemetry.count("purged_objects", gone, tier="memory")
        if not purge.soft:
            self._walk_wanted.set()

    async def _from_memory(self, purge: Purge, meant: Callable[[str], bool]) -> int:
        memory, gone = self._node.tiers.memory, 0
        keys = memory.index.keys(_beginning(purge).encode())
        for at in range(0, len(keys), _KEYS):
            for key in keys[at : at + _KEYS]:
                if meant(key.decode()):
                    gone += memory.purge(key, soft=purge.soft)
            await asyncio.sleep(0)
        return gone

    # --- the disk

    async def _walk(self) -> None:
        """Throw out objects that were purged, one worker for all; until that is done each is asked for when it is found."""
        disk, pool = self._node.tiers.disk, self._node.pool
        while True:
            await self._walk_wanted.wait()
            self._walk_wanted.clear()
            try:
                if await pool.run(disk.keeper):
                    paths = await pool.run(disk.files)
                    for at in range(0, len(paths), _FILES):
                        gone = await pool.run(disk.expel, paths[at : at + _FILES])
                        self._node.telemetry.count("purged_objects", gone, tier="disk")
            except StreamGateError:  # overloaded: there are better things to do
                self._walk_wanted.set()
                await asyncio.sleep(_AGAIN_S)

    # --- what was purged softly

    def _refresh(self, key: str) -> None:
        """Make what is served as stale anew, unless that is under way, or too much is."""
        if key in self._refreshes or len(self._refreshes) >= _REFRESHES:
            return
        task = self._refreshes[key] = asyncio.ensure_future(self._make(key))
        task.add_done_callback(lambda _: self._refreshes.pop(key, None))

    async def _make(self, key: str) -> None:
        node, result = self._node, "failed"
        try:
            result = await self._made(key)
        except StreamGateError as error:
            _log.info("what was purged softly cannot be made anew and stays", path=key, code=error.code)
            await asyncio.sleep(_AGAIN_S)
        except Exception:
            _log.exception("what was purged softly cannot be made anew and stays", path=key)
            await asyncio.sleep(_AGAIN_S)
        finally:
            node.telemetry.count("refreshes", result=result)

    async def _made(self, key: str) -> str:
        node, target = self._node, routes.match(key)
        opened = await node.assets.open(target.asset)
        scope = "public" if target.asset.encode() in node.gate.open else "private"
        arguments = (target, opened, node.settings.edge)
        if target.route.name in media.QUICK:
            entry = media.build(*arguments)
        else:
            entry = await node.flights.join(f"{key}#again", media.build, *arguments)
        terms = Terms(scope, target.route.name)
        if isinstance(entry.body, bytes):
            if not target.route.immutable:
                entry = replace(entry, generation=opened.generation)
                # Who asks next tells for how long it counts.
                terms = replace(terms, until=0)
            return "ok" if node.tiers.memory.put(key, entry, terms) else "dropped"
        if await fill(node, key, entry, terms) == "dropped":
            return "dropped"
        # Here is the old one still; the new one is on the disk, or has replaced it.
        await node.tiers.memory.renew(key)
        return "ok"


def _beginning(purge: Purge) -> str:
    """What all keys begin with that it means."""
    if purge.kind in ("url", "prefix"):
        return purge.subject
    # Those of a preview begin like those of its asset.
    if purge.kind == "asset":
        return f"/v/{purge.subject}"
    asset = purge.subject.removeprefix("asset:")
    return f"/v/{asset}" if asset != purge.subject else "/v/"
