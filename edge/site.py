"""A site: nodes that share one feed of events, kept in Redis. The parent carries events between it and the machine's store.

The machine's store is what the node goes by. What is written into it is published to the site afterwards, in order, and what
other nodes published is written into it, so that it reaches the workers the way all events do (:mod:`edge.feed`). An event
is known by its uid: nothing goes round in circles, and to publish or to read it again changes nothing.
So this remembers nothing beyond its own life. At its start, and whenever the site's feed is another than before (flushed,
restarted, failed over), it reads that from the start and publishes all that matters here and is not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from edge.control import Message
from edge.feed import MAX_SUBJECT, Feed
from edge.freshness import Failing, Freshness
from edge.revocations import FOREVER
from streamgate.core.clock import Setbacks, steady
from streamgate.core.logging import get_logger
from streamgate.core.settings import Settings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.storage.kv.events import EVENT_TYPES, UID_BYTES, Event, Position
from streamgate.storage.kv.sqlite import SqliteStore

_log = get_logger("edge.site")
_PAGE = 1000  # events that are read at once: a call's time is short
_BATCH = 200  # events that are published at once
_RETRY_S = 1.0  # until what could not be published is tried again
_PRUNE_S = 60.0
_TELL_S = 1.0
_CALL_S = 2.0  # nobody waits for a call, so it may take longer than one for a viewer
_FIRST_S = 1.0  # of the start, for which workers wait
_LAST_S = 2.0  # of the end


class SharedFeed(Protocol):
    """What is needed of the store that a site shares; see :class:`~streamgate.storage.kv.store.KeyValueStore`."""

    async def adopt(self, events: list[Event]) -> int: ...
    async def events(self, after: Position | None = None, limit: int = ...) -> tuple[list[Event], Position]: ...
    async def drop(self, events: list[Event]) -> int: ...
    async def prune(self) -> int: ...
    async def close(self) -> None: ...


class Site:
    """Exchanges events between ``local``, which ``feed`` follows, and ``shared``; ``tell`` gets word of it to the workers.

    ``poll`` (s) is the time between two looks at ``shared``; ``clock`` gives s since 1970, ``passed`` those that nobody sets.
    """

    def __init__(
        self,
        local: SqliteStore,
        shared: SharedFeed,
        feed: Feed,
        freshness: Freshness,
        telemetry: Telemetry,
        tell: Callable[[Message], None],
        poll: float,
        clock: Callable[[], float] = time.time,
        passed: Callable[[], float] = steady,
    ) -> None:
        self._local = local
        self._shared = shared
        self._feed = feed
        self._freshness = freshness
        self._telemetry = telemetry
        self._tell = tell
        self._poll = poll
        self._clock = clock
        self._passed = passed
        self._read: Position | None = None
        self._published: Position | None = None
        self._there: dict[bytes, int | None] = {}
        """The uids of what is in the shared feed, each with its end."""
        self._needless: list[Event] = []
        """What is to be removed from the shared feed."""
        self._publish_at = 0.0
        self._wanted = asyncio.Event()
        self._told: tuple[object, ...] = ()
        self._told_at = 0.0
        self._stale = False
        self._pruned = passed()
        self._set_back = Setbacks(clock, passed)
        feed.on_events = self._wanted.set
        feed.on_needless = self._needless.extend

    async def run(self) -> None:
        """Exchange events for ever: at once when there are new ones here, else so often."""
        while True:
            with contextlib.suppress(TimeoutError):
                # Not all nodes of a site at the same moment.
                async with asyncio.timeout(self._poll * random.uniform(0.75, 1.0)):
                    await self._wanted.wait()
            self._wanted.clear()
            await self.exchange()

    async def exchange(self) -> bool:
        """Read what is new there, then publish what is new here; whether both was done. Raises nothing."""
        if self._set_back():
            # What seemed to have ended was passed over.
            self._published = None
        done = await self._try("read", self.read)
        if done and self._passed() >= self._publish_at:
            done = await self._try("written", self.publish)
            # What is full can be read, and goes on being read: few calls fail, and the circuit stays closed.
            self._publish_at = self._passed() + (0.0 if done else _RETRY_S)
        if done and self._freshness.failing and self._passed() >= self._publish_at:
            self._freshness.failing = ""
            _log.info("the site's feed is followed again")
        if done and self._passed() - self._pruned >= _PRUNE_S:
            self._pruned = self._passed()
            await self._try("written", self._prune)
        self._say()
        return done

    async def read(self) -> None:
        """Write down here what others have published. Raises ``store_unavailable``."""
        new = 0
        while True:
            asked = self._passed()
            events, position = await self._shared.events(self._read, _PAGE)
            if self._read is not None and position.incarnation != self._read.incarnation:
                _log.warning("the site's feed began anew; what matters here is published again")
                self._telemetry.count("site_feed_renewals")
                # Whatever was there before: these events are read from its start.
                self._there.clear()
                self._published = None
            new += await self._local.adopt([event for event in events if self._is_new(event)])
            self._there.update((event.uid, event.until) for event in events)
            self._read = position
            if not events:
                break
        self._freshness.read_at(asked)
        if new:
            self._telemetry.count("site_events", new, way="read")
            self._feed.look()

    async def publish(self) -> None:
        """Add what was written here, whoever wrote it, to the shared feed where that lacks it. Raises ``store_unavailable``."""
        while True:
            events, position = await self._local.events(self._published, _BATCH)
            lacking = [event for event in events if event.uid not in self._there]
            if lacking:
                self._telemetry.count("site_events", await self._shared.adopt(lacking), way="published")
                self._there.update((event.uid, event.until) for event in lacking)
            self._published = position
            if not events:
                break
        if self._needless:
            # Only now: what says all that they said is there.
            needless = [*self._needless]
            await self._shared.drop(needless)
            del self._needless[: len(needless)]

    async def close(self) -> None:
        """Publish what is left, if that can be done at once, and let go of the shared feed."""
        self._feed.on_events = lambda: None
        published = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_S):
                published = await self._try("written", self.publish)
        if not published:
            _log.warning("what was written last is published at the next start")
        await self._shared.close()

    def _is_new(self, event: Event) -> bool:
        """Whether it is to be written down. What a newer version of ours knows of waits until this one is replaced."""
        if event.uid in self._there:
            return False
        known = event.type in EVENT_TYPES and len(event.uid) == UID_BYTES
        return known and len(event.subject) <= MAX_SUBJECT and (event.until is None or event.until < FOREVER)

    async def _prune(self) -> None:
        now = self._clock()
        for uid in [uid for uid, until in self._there.items() if until is not None and until <= now]:
            del self._there[uid]
        await self._shared.prune()

    async def _try(self, what: Failing, work: Callable[[], Awaitable[None]]) -> bool:
        try:
            await work()
            return True
        except StreamGateError as error:
            failure = error
        except Exception as error:
            # Whatever it is, the node serves on.
            failure = StreamGateError("internal", repr(error))
        self._telemetry.count("site_feed_failures", way=what)
        if self._freshness.failing != what:
            _log.warning(f"the site's feed cannot be {what}", code=failure.code, detail=failure.detail)
        self._freshness.failing = what
        return False

    def _say(self) -> None:
        """Let workers, metrics and the log know how things are: changes at once, all else now and then."""
        freshness, now = self._freshness, self._passed()
        if freshness.stale != self._stale:
            self._stale = freshness.stale
            if self._stale:
                _log.error("the site's feed is older than allowed: perhaps not all that is revoked is known")
            else:
                _log.info("the site's feed is young enough again")
        state = freshness.failing, freshness.circuit, freshness.stale
        if state != self._told or now - self._told_at >= min(_TELL_S, (freshness.max_age or _TELL_S) / 4):
            self._told, self._told_at = state, now
            self._tell(freshness.message())
            self._telemetry.publish()


@contextlib.asynccontextmanager
async def joined(
    settings: Settings, local: SqliteStore, feed: Feed, telemetry: Telemetry, tell: Callable[[Message], None]
) -> AsyncIterator[Freshness]:
    """Be a part of the site that ``settings`` name, if any, while the block runs; how old what is known of its feed is.

    The feed is read once before the block begins, if it answers. Raises ``config_invalid``.
    """
    if not settings.redis.url:
        yield Freshness(None)
        return
    try:
        # Imported only where it is wanted: it is no part of a small installation.
        from streamgate.storage.kv.redis import RedisStore
    except ModuleNotFoundError as error:
        missing = "redis.url needs what is not installed: pip install 'streamgate[redis]'"
        raise StreamGateError("config_invalid", missing) from error

    freshness = Freshness(settings.revocation.max_age)

    def changed(state: str) -> None:
        # Each attempt while it is open makes it half-open for a moment.
        if "closed" in (state, freshness.circuit):
            _log.warning("the circuit to Redis changed", state=state, use="feed")
        freshness.circuit = state

    longest = max(_CALL_S, settings.redis.timeout)
    patient = settings.redis.model_copy(update={"timeout": longest, "circuit_slow": longest})
    shared = await RedisStore.open(patient, on_change=changed)
    site = Site(local, shared, feed, freshness, telemetry, tell, settings.revocation.poll)
    telemetry.watch("site_feed_age_seconds", lambda: freshness.age)
    telemetry.watch("redis_left_alone", lambda: float(freshness.circuit != "closed"), use="feed")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_FIRST_S):
            await site.exchange()
    running = asyncio.create_task(site.run())
    try:
        yield freshness
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await site.close()
