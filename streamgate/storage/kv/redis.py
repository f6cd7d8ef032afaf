"""A store that the machines of a site share: Redis, or Redis Cluster."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

from redis.asyncio import Redis
from redis.exceptions import MaxConnectionsError, NoScriptError, ReadOnlyError, RedisClusterException, RedisError

from streamgate.core.settings import RedisSettings
from streamgate.errors import StreamGateError
from streamgate.storage.circuit import Circuit
from streamgate.storage.kv import redis_scripts
from streamgate.storage.kv.events import EVENT_TYPES, UID_BYTES, Event, EventType, Position
from streamgate.storage.kv.redis_client import Client, connect, disconnect, get_each, send_each
from streamgate.storage.kv.rows import ANY, Write

T = TypeVar("T")

_DETAIL = 200
"""Most characters of Redis's own words that an error repeats."""
_TOGETHER = 500
"""Writes that are sent at once."""
_AT_ONCE = 8
"""The same in a cluster, where each is a call: more would wait for a connection, and longer than a call may take."""
_PAGE = 1000
"""Events that are looked at in one step when those that have ended are removed."""


# READONLY: it was the primary once, and another may answer at its address now. The others: the cluster's client loses one
# place with each connection that it cannot make, until it has none left.
_HOPELESS = (ReadOnlyError, MaxConnectionsError, RedisClusterException)


class RedisStore:
    """Made by :meth:`open`; a :class:`~streamgate.storage.kv.store.KeyValueStore`.

    No call takes longer than ``redis.timeout``. While ``circuit`` is open, each raises ``store_unavailable`` at once.
    """

    def __init__(self, client: Client, settings: RedisSettings, circuit: Circuit, clock: Callable[[], float]) -> None:
        self.client = client
        """For commands that are not here: ``await store.call(lambda: store.client.…)`` with keys of :meth:`key`."""
        self.circuit = circuit
        self._clock = clock
        self._settings = settings
        self._closing: set[asyncio.Task[None]] = set()
        self._prefix = settings.prefix
        self._timeout = settings.timeout
        self._room = asyncio.Semaphore(settings.pool)
        self._name = settings.url
        self._feed = f"{settings.prefix}feed"

    @classmethod
    async def open(
        cls,
        settings: RedisSettings,
        on_change: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> RedisStore:
        """The store that ``settings`` name, whether or not it answers now. Raises ``config_invalid``.

        ``on_change`` is told the circuit's new state; ``clock`` gives s since 1970, and says which events have ended.
        """
        circuit = Circuit(
            failures=settings.circuit_failures,
            slow=settings.circuit_slow,
            share=settings.circuit_share,
            window=settings.circuit_window,
            probe=settings.circuit_probe,
            probe_max=settings.circuit_probe_max,
            on_change=on_change,
        )
        return cls(connect(settings), settings, circuit, clock)

    async def close(self) -> None:
        """Close all connections."""
        if self._closing:
            await asyncio.wait(self._closing)
        await disconnect(self.client)

    def key(self, key: str) -> str:
        """The name that ``key`` has in Redis."""
        return f"{self._prefix}kv:{key}"

    def _lease(self, name: str) -> str:
        return f"{self._prefix}lease:{name}"

    async def get(self, key: str) -> bytes | None:
        """The value, or None where there is none any more."""
        return cast("bytes | None", await self._command("GET", self.key(key)))

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values in the order of ``keys``; those of a cluster's different nodes are not of one moment."""
        if not keys:
            return []
        names = [self.key(key) for key in keys]
        if len(names) == 1:
            return [await self._command("GET", *names)]
        return await self.call(lambda: get_each(self.client, names))

    async def put(self, key: str, value: bytes, ttl: float | None = None) -> None:
        """Set a value."""
        await self._command("SET", self.key(key), value, *_expiry(ttl))

    async def put_new(self, key: str, value: bytes, ttl: float | None = None) -> bool:
        """Set a value where there is none; whether it was. Of several at once exactly one succeeds."""
        return await self._command("SET", self.key(key), value, "NX", *_expiry(ttl)) is not None

    async def take(self, key: str) -> bytes | None:
        """The value, which is then gone. Of several at once exactly one gets it."""
        return cast("bytes | None", await self._command("GETDEL", self.key(key)))

    async def delete(self, key: str) -> bool:
        """Remove a value; whether there was one."""
        return bool(await self._command("DEL", self.key(key)))

    async def write(self, writes: Sequence[Write]) -> list[bool]:
        """Do these, each by itself; which of them were done, and not refused for what was there instead."""
        done: list[bool] = []
        alone = not isinstance(self.client, Redis) or len(writes) == 1
        size = _AT_ONCE if alone else _TOGETHER
        for at in range(0, len(writes), size):
            batch = writes[at : at + size]
            if alone:
                done += await asyncio.gather(*(self._write(each) for each in batch))
                continue
            done += await self.call(lambda batch=batch: self._write_each(batch))  # type: ignore[misc]
        return done

    async def _write_each(self, writes: Sequence[Write]) -> list[bool]:
        client = cast(Redis, self.client)
        told = await send_each(
            client, [self._words(each, "EVALSHA", _digest(redis_scripts.REPLACE)) for each in writes]
        )
        unknown = [at for at, answer in enumerate(told) if isinstance(answer, NoScriptError)]
        again = [self._words(writes[at], "EVAL", redis_scripts.REPLACE) for at in unknown]
        for at, answer in zip(unknown, await send_each(client, again) if again else [], strict=True):
            told[at] = answer
        for answer in told:
            if isinstance(answer, Exception):
                raise answer
        return [bool(answer) for answer in told]

    def _words(self, each: Write, *script: str) -> tuple[Any, ...]:
        """The command that does one; ``script``: how the script is called where it takes one."""
        name = self.key(each.key)
        if each.expected is ANY or each.expected is None:
            only = () if each.expected is ANY else ("NX",)
            return "SET", name, each.value, *only, *_expiry(each.ttl)
        return *script, 1, name, each.expected, each.value, "" if each.ttl is None else _milliseconds(each.ttl)

    async def _write(self, each: Write) -> bool:
        if each.expected is ANY:
            await self.put(each.key, each.value, each.ttl)
            return True
        if each.expected is None:
            return await self.put_new(each.key, each.value, each.ttl)
        ttl = "" if each.ttl is None else _milliseconds(each.ttl)
        return bool(await self._script(redis_scripts.REPLACE, self.key(each.key), each.expected, each.value, ttl))

    async def lease(self, name: str, holder: bytes, ttl: float) -> bool:
        """Take or extend the lease ``name``; False where another holder has it."""
        return bool(await self._script(redis_scripts.LEASE, self._lease(name), holder, _milliseconds(ttl)))

    async def release(self, name: str, holder: bytes) -> bool:
        """Give a lease back; False where the holder had it no longer."""
        return bool(await self._script(redis_scripts.RELEASE, self._lease(name), holder))

    async def append(self, type: EventType, subject: bytes, until: int | None) -> int:
        """Add an event; its id, higher than that of every earlier one. Raises ValueError for a type that is none."""
        event = _member(Event(0, type, subject, until, secrets.token_bytes(UID_BYTES)))
        _, last = await self._script(redis_scripts.ADOPT, self._feed, _fresh(), event)
        return int(last)

    async def adopt(self, events: Iterable[Event]) -> int:
        """Add events that have a uid, in this order: all of those that are not here yet, or none; how many these were.

        Raises ValueError for a type that is none.
        """
        members = [_member(event) for event in events]
        if not members:
            return 0
        added, _ = await self._script(redis_scripts.ADOPT, self._feed, _fresh(), *members)
        return cast(int, added)

    async def events(self, after: Position | None = None, limit: int = 10_000) -> tuple[list[Event], Position]:
        """The next events that matter still, and where they end; from the start where the store is another than ``after``'s.

        It is another, too, after a failover or a restart: the newest events may have been lost.
        """
        seen = after or Position("", 0)
        told = await self._script(
            redis_scripts.EVENTS, self._feed, _fresh(), seen.incarnation, seen.id, math.floor(self._clock()), limit
        )
        incarnation, found = told[0].decode(), [_event(*each) for each in zip(told[1][::2], told[1][1::2], strict=True)]
        return found, Position(
            incarnation, found[-1].id if found else seen.id if incarnation == seen.incarnation else 0
        )

    async def drop(self, events: Iterable[Event]) -> int:
        """Remove these events, for a later one says all that they said; how many there were."""
        members = [_member(event) for event in events]
        gone = 0
        for at in range(0, len(members), _PAGE):
            gone += await self._command("ZREM", self._feed, *members[at : at + _PAGE])
        return gone

    async def prune(self) -> int:
        """Remove events that have ended, of which it tells how many there were; values end by themselves."""
        gone, after = 0, b"0"
        while after:
            removed, after = await self._script(
                redis_scripts.PRUNE, self._feed, after, math.floor(self._clock()), _PAGE
            )
            gone += removed
        return gone

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something with the client, in bounded time, unless the circuit is open. Raises ``store_unavailable``."""
        return await self.circuit.call(lambda: self._bounded(work))

    async def _bounded(self, work: Callable[[], Awaitable[T]]) -> T:
        client = self.client
        try:
            async with asyncio.timeout(self._timeout), self._room:
                return await work()
        except (RedisError, RedisClusterException, OSError) as error:  # TimeoutError is an OSError
            if isinstance(error, _HOPELESS) and client is self.client:
                self._renew()
            detail = " ".join(str(error).split())[:_DETAIL] or f"no answer within {self._timeout} s"
            raise StreamGateError("store_unavailable", f"{self._name}: {detail}") from error

    def _renew(self) -> None:
        """Go on with a client that has no past."""
        old = self.client
        with contextlib.suppress(StreamGateError):  # a file that the settings name is gone
            self.client = connect(self._settings)
            closing = asyncio.create_task(disconnect(old))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _command(self, *words: Any) -> Any:
        return await self.call(lambda: self._send(*words))

    async def _script(self, script: str, key: str, *arguments: Any) -> Any:
        async def run() -> Any:
            try:
                return await self._send("EVALSHA", _digest(script), 1, key, *arguments)
            except NoScriptError:
                return await self._send("EVAL", script, 1, key, *arguments)

        return await self.call(run)

    async def _send(self, *words: Any) -> Any:
        client: Any = self.client
        return await client.execute_command(*words)


_digests: dict[str, str] = {}


def _digest(script: str) -> str:
    if script not in _digests:
        _digests[script] = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
    return _digests[script]


def _fresh() -> str:
    return secrets.token_hex(16)


def _milliseconds(ttl: float) -> int:
    return max(1, math.ceil(ttl * 1000))


def _expiry(ttl: float | None) -> tuple[Any, ...]:
    return () if ttl is None else ("PX", _milliseconds(ttl))


def _member(event: Event) -> bytes:
    if event.type not in EVENT_TYPES:
        raise ValueError(f"there is no event type {event.type!r}")
    if len(event.uid) != UID_BYTES:
        raise ValueError(f"a uid has {UID_BYTES} bytes")
    return b"e%b%b|%b|%b" % (
        event.uid,
        event.type.encode(),
        b"" if event.until is None else b"%d" % event.until,
        event.subject,
    )


def _event(score: bytes, member: bytes) -> Event:
    kind, until, subject = member[1 + UID_BYTES :].split(b"|", 2)
    uid = member[1 : 1 + UID_BYTES]
    return Event(int(score), cast(EventType, kind.decode()), subject, int(until) if until else None, uid)
