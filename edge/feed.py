"""The machine's events on their way to the workers: written down first, then applied everywhere, then acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from edge.control import Message, event_to_message
from edge.process import Process
from edge.revocations import KINDS, Revocations
from streamgate.core.logging import get_logger
from streamgate.errors import StreamGateError
from streamgate.storage.kv.events import Position
from streamgate.storage.kv.sqlite import SqliteStore

_log = get_logger("edge.feed")
GRACE_S = 30
"""Time that a token still counts after its exp; a revocation lasts as long."""
_POLL_S = 1.0
_PRUNE_S = 60.0
_ANSWER_S = 5.0


class Feed:
    """Passes on what is in the store, whoever wrote it. ``processes`` are the workers that there are."""

    def __init__(self, store: SqliteStore, processes: Callable[[], Iterable[Process]]) -> None:
        self.held = Revocations()
        self._store = store
        self._processes = processes
        self._position: Position | None = None
        self._lock = asyncio.Lock()

    async def revoke(self, kind: str, subject: bytes, exp: int | None) -> None:
        """Revoke a session or a kid until every token that ends by ``exp`` (s since 1970; None: any time) has ended.

        It is in force in every worker when this returns. Raises ``store_unavailable``, and then nothing has happened;
        and ``not_acknowledged``: it is in force wherever a worker can answer.
        """
        await self._store.append(KINDS[kind], subject, None if exp is None else exp + GRACE_S)
        await self.catch_up()

    async def catch_up(self) -> None:
        """Bring the workers to the end of the feed. Raises ``store_unavailable`` and ``not_acknowledged``."""
        async with self._lock:
            before = self._position
            events, position = await self._store.events(before)
            if before is not None and position.incarnation != before.incarnation:
                await self._publish_again()
                events, position = await self._store.events()
            while events:
                for event in events:
                    self.held.apply(event)
                message: Message = {"do": "apply", "events": [event_to_message(event) for event in events]}
                await self._tell(message)
                events, position = await self._store.events(position)
            self._position = position

    async def run(self) -> None:
        """Look for events that others wrote, and remove those that have ended, for ever."""
        pruned = time.monotonic()
        while True:
            await asyncio.sleep(_POLL_S)
            self.held.forget()
            try:
                await self.catch_up()
                if time.monotonic() - pruned >= _PRUNE_S:
                    pruned = time.monotonic()
                    await self._store.prune()
            except StreamGateError as error:
                _log.error("the feed cannot be followed", code=error.code, detail=error.detail)

    async def _publish_again(self) -> None:
        """The store is another than before and knows nothing of what is in force."""
        _log.warning("the store began anew; what is revoked is written into it again", entries=len(self.held))
        for event in self.held.events():
            await self._store.append(event.type, event.subject, event.until)

    async def _tell(self, message: Message) -> None:
        """Have all who serve do it, and those who will serve do it before."""
        serving = []
        for process in self._processes():
            if process.state in ("serving", "leaving"):
                serving.append(asyncio.create_task(process.ask(message)))
            elif process.state == "starting":
                process.tell({**message, "id": -1})
        if not serving:
            return
        _, late = await asyncio.wait(serving, timeout=_ANSWER_S)
        for task in late:
            task.cancel()
        if late:
            raise StreamGateError("not_acknowledged", f"{len(late)} of {len(serving)} workers have not answered")
