"""The machine's events on their way to the workers: written down first, then applied everywhere, then acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator

from edge.control import Message, event_to_message
from edge.process import Process
from edge.purges import Purge, everything
from edge.revocations import KINDS, Held
from streamgate.core.clock import Setbacks, steady
from streamgate.core.logging import get_logger
from streamgate.core.settings import PurgeSettings, RevocationSettings
from streamgate.errors import StreamGateError
from streamgate.storage.kv.events import Event, EventType, Position
from streamgate.storage.kv.sqlite import SqliteStore

_log = get_logger("edge.feed")
GRACE_S = 30
"""Time that a token still counts after its exp; a revocation lasts as long."""
MAX_SUBJECT = 64 * 1024
"""Bytes of an event's subject at most."""
_POLL_S = 1.0
_REVOCATIONS, _PURGES = RevocationSettings(), PurgeSettings()
_PRUNE_S = 60.0
_ANSWER_S = 5.0
_MESSAGE = 256 * 1024  # bytes, about; far less than what edge.control takes for a line


class Feed:
    """Passes on what is in the store, whoever wrote it. ``processes`` are the workers that there are.

    ``clock`` gives s since 1970, ``passed`` seconds that nobody sets.
    """

    def __init__(
        self,
        store: SqliteStore,
        processes: Callable[[], Iterable[Process]],
        clock: Callable[[], float] = time.time,
        passed: Callable[[], float] = steady,
    ) -> None:
        self.held = Held(clock)
        self.on_events: Callable[[], None] = lambda: None
        """Called when there is something new in the store, before the workers have applied it."""
        self.on_needless: Callable[[list[Event]], None] = lambda events: None
        """Called with those that were removed from the store, for a later one says all that they said."""
        self._store = store
        self._processes = processes
        self._clock = clock
        self._passed = passed
        self._set_back = Setbacks(clock, passed)
        self._position: Position | None = None
        self._lock = asyncio.Lock()
        self._wanted = asyncio.Event()
        self._telling: dict[asyncio.Task[None], set[int]] = {}
        """What workers have yet to answer, each with the numbers of its events."""

    async def revoke(
        self, kind: str, subject: bytes, exp: int | None, limits: RevocationSettings = _REVOCATIONS
    ) -> None:
        """Revoke a session, a kid or a token until every token that ends by ``exp`` (s since 1970; None: any time) has ended.

        It is in force in every worker when this returns; raises as :meth:`announce`, and ``revocations_full``.
        """
        if self.held.revocations >= limits.most:
            raise StreamGateError("revocations_full", f"{limits.most}, as revocation.most allows")
        if exp is None and kind != "kid":
            exp = int(self._clock()) + limits.keep
        await self.announce(KINDS[kind], subject, None if exp is None else exp + GRACE_S)

    async def purge(self, purge: Purge, limits: PurgeSettings = _PURGES) -> None:
        """Have what is purged thrown out of every worker's tiers; raises as :meth:`announce`.

        Where so many are kept already, it becomes one of everything, which takes the place of all earlier ones.
        """
        if self.held.purges >= limits.most:
            _log.warning("as many purges are kept as are allowed; everything is purged instead", most=limits.most)
            purge = everything(purge.at)
        await self.announce("purge", purge.encode(), purge.at + limits.keep)

    async def announce(self, type: EventType, subject: bytes, until: int | None) -> None:
        """Write an event down that matters until ``until`` (s since 1970; None: for ever), and have all workers apply it.

        Raises ``store_unavailable``, and then nothing has happened; and ``not_acknowledged``: whoever can answer has
        applied it, and so will the others who serve. Raises ValueError for a type that is none or too long a subject.
        """
        if len(subject) > MAX_SUBJECT:
            raise ValueError(f"a subject has {MAX_SUBJECT} bytes at most")
        number = await self._store.append(type, subject, until)
        await self._pass_on()
        await self._answered(number)

    def look(self) -> None:
        """Have :meth:`run` look for events now."""
        self._wanted.set()

    async def catch_up(self) -> None:
        """Bring the workers to the end of the feed. Raises ``store_unavailable`` and ``not_acknowledged``."""
        await self._pass_on()
        await self._answered()

    async def run(self) -> None:
        """Look for events that others wrote, and remove those that have ended, for ever."""
        pruned = self._passed()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_S):
                    await self._wanted.wait()
            self._wanted.clear()
            self.held.forget()
            try:
                await self._pass_on()
                if self._passed() - pruned >= _PRUNE_S:
                    pruned = self._passed()
                    await self._store.prune()
            except StreamGateError as error:
                _log.error("the feed cannot be followed", code=error.code, detail=error.detail)

    async def _pass_on(self) -> None:
        """Tell the workers all that is new, without waiting for their answers: what comes next is not to wait for them."""
        async with self._lock:
            if self._set_back():
                _log.warning("the clock was set back; what had ended before is looked at again")
                self._position = None
            before = self._position
            events, position = await self._store.events(before)
            if before is not None and position.incarnation != before.incarnation:
                await self._publish_again()
                events, position = await self._store.events()
            while events:
                needless = [old for event in events for old in self.held.apply(event)]
                self.on_events()
                for batch in _batches(events):
                    self._tell(batch)
                if needless:
                    await self._store.drop(needless)
                    self.on_needless(needless)
                events, position = await self._store.events(position)
            self._position = position

    async def _publish_again(self) -> None:
        """The store is another than before and may know nothing of what matters."""
        held = self.held.events()
        _log.warning("the store began anew; what matters is written into it again", entries=len(held))
        await self._store.adopt(held)

    def _tell(self, batch: list[Event]) -> None:
        """Have all who serve apply these, and those who will serve do it before."""
        message: Message = {"do": "apply", "events": [event_to_message(event) for event in batch]}
        asked = []
        for process in self._processes():
            if process.state in ("serving", "leaving"):
                asked.append(asyncio.create_task(process.ask(message)))
            elif process.state == "starting":
                process.tell({**message, "id": -1})
        if asked:
            telling = asyncio.create_task(_all_answer(asked))
            self._telling[telling] = {event.id for event in batch}
            telling.add_done_callback(self._told)

    def _told(self, telling: asyncio.Task[None]) -> None:
        del self._telling[telling]
        if not telling.cancelled() and (error := telling.exception()) is not None:
            _log.warning("events were not acknowledged in time", detail=str(error))

    async def _answered(self, number: int | None = None) -> None:
        """Wait until all who were told of an event (None: of whatever was told so far) have applied it."""
        telling = [task for task, numbers in self._telling.items() if number is None or number in numbers]
        await asyncio.gather(*(asyncio.shield(task) for task in telling))


async def _all_answer(asked: list[asyncio.Task[None]]) -> None:
    _, late = await asyncio.wait(asked, timeout=_ANSWER_S)
    for task in late:
        task.cancel()
    if late:
        raise StreamGateError("not_acknowledged", f"{len(late)} of {len(asked)} workers have not answered")


def _batches(events: list[Event]) -> Iterator[list[Event]]:
    """The events in rows that fit into a message; purges, which may take a while, apart from all others."""
    batch: list[Event] = []
    size = 0
    for event in events:
        if batch and (event.type == "purge") != (batch[-1].type == "purge"):
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += 2 * len(event.subject) + 100
        if size >= _MESSAGE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
