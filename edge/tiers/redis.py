"""The tier that the nodes of a site share: texts, init segments, small segments and indexes of sources, in Redis.

Whatever goes wrong there is a miss. Reads of one turn of the event loop go together. Writes are queued, nobody waits for
them, and beyond a limit they are left out. The two have connections and a circuit each: a Redis that is full can be read.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Protocol

from edge.entries import Entry
from edge.threads import Pool
from edge.tiers import values
from edge.tiers.tier import Terms
from streamgate.core.logging import get_logger
from streamgate.core.settings import RedisSettings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.storage.circuit import Circuit

# What an entry says of itself beside its body.
_FIELDS = 16 * 1024
# A text, or the index of hours of media; a value of more would take longer to read than anybody waits for it.
TEXT_LIMIT = 8 * 1024 * 1024
# What is packed on the loop takes some microseconds; more than this is a thread's work.
_INLINE = 8 * 1024
_WRITERS = 4
_TOGETHER = 32
_BUFFERED = 32 * 1024 * 1024
# What a probe writes, under a name that nobody asks for, is gone after so long.
_PROBE_S = 1.0
INDEX = "index"
"""The tag of an entry that holds the index of a source."""
_log = get_logger("edge.redis")


class Reads(Protocol):
    """What is needed of :class:`streamgate.storage.kv.redis_reads.RedisReads`."""

    @property
    def circuit(self) -> Circuit:
        """Closed while there is an answer to be expected."""

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values in the order of ``keys``; raises ``store_unavailable``."""

    async def close(self) -> None:
        """Let go of the connections."""


class Writes(Protocol):
    """What is needed of :class:`streamgate.storage.kv.redis.RedisStore`; every call raises ``store_unavailable``."""

    circuit: Circuit

    async def get(self, key: str) -> bytes | None:
        """The value, or None where there is none."""

    async def put(self, key: str, value: bytes, ttl: float | None = None) -> None:
        """Set a value."""

    async def put_new(self, key: str, value: bytes, ttl: float | None = None) -> bool:
        """Set a value where there is none; whether it was."""

    async def delete(self, key: str) -> bool:
        """Remove a value; whether there was one."""

    async def close(self) -> None:
        """Let go of the connections."""


@dataclass(frozen=True, slots=True)
class _Write:
    key: str
    entry: Entry
    body: bytes
    compress: bool
    done: Callable[[bool], None] | None


class RedisTier:
    """Entries in Redis, each for ``redis.ttl`` seconds, segments up to ``redis.object_limit`` bytes; for one event loop.

    ``reads`` and ``writes`` are the same Redis.
    """

    name = "redis"

    def __init__(self, reads: Reads, writes: Writes, settings: RedisSettings, pool: Pool, telemetry: Telemetry) -> None:
        self._reads = reads
        self.writes = writes
        self.limit = settings.object_limit
        self._ttl = settings.ttl
        self._pool = pool
        self._telemetry = telemetry
        # Tells of an entry that came from there whether it must not be used: a purge that its maker never heard of.
        self.refuses: Callable[[str, Entry], bool] = lambda key, entry: False
        self._asked: dict[str, list[asyncio.Future[Entry | None]]] = {}
        self._reading: set[asyncio.Task[None]] = set()
        self._wanted = 0
        self._most_wanted = max(_TOGETHER, _BUFFERED // max(1, self.limit))
        self._queue: asyncio.Queue[_Write | None] = asyncio.Queue()
        self._queued = 0
        self._writers: list[asyncio.Task[None]] = []
        self._removing: set[asyncio.Task[bool]] = set()
        self._healing: list[asyncio.Task[None]] = []
        for circuit, use in ((reads.circuit, "read"), (writes.circuit, "write")):
            telemetry.watch("redis_left_alone", partial(_left_alone, circuit), use=use)

    def start(self) -> None:
        """Notice by itself, from now on, that Redis answers again, though no viewer asks for anything."""
        probes = ((self._reads.circuit, self._probe_read), (self.writes.circuit, self._probe_write))
        self._healing = [asyncio.ensure_future(circuit.heal(probe)) for circuit, probe in probes]

    async def close(self) -> None:
        """Begin nothing more; what is under way has its time, for a call that is cut off may leave a connection behind."""
        for healing in self._healing:
            healing.cancel()
        await asyncio.gather(*self._healing, return_exceptions=True)
        while not self._queue.empty():
            self._queue.get_nowait()
        for _ in self._writers:
            self._queue.put_nowait(None)
        tasks = [*self._writers, *self._reading, *self._removing]
        if tasks:
            await asyncio.wait(tasks)
        await self._reads.close()
        await self.writes.close()

    @property
    def readable(self) -> bool:
        """Whether there is an answer to be expected."""
        return self._reads.circuit.state == "closed"

    def problem(self) -> str | None:
        """What is not as it should be, for people."""
        uses = (("read", self._reads.circuit), ("written", self.writes.circuit))
        alone = [use for use, circuit in uses if circuit.state != "closed"]
        return f"what other nodes made is not {' or '.join(alone)}: Redis fails" if alone else None

    def takes(self, size: int) -> bool:
        """Whether a segment of ``size`` bytes is kept here."""
        return size <= self.limit

    async def lookup(self, key: str) -> Entry | None:
        """The entry, if it is here and whole; None at once where too much is asked for already."""
        future = self.ask(key)
        return await future if future is not None else None

    def ask(self, key: str) -> asyncio.Future[Entry | None] | None:
        """As :meth:`lookup`, without waiting."""
        loop = asyncio.get_running_loop()
        waiting = self._asked.get(key)
        if waiting is None:
            if self._wanted >= self._most_wanted:
                self._telemetry.count("redis_reads", result="skipped")
                return None
            if not self._asked:
                loop.call_soon(self._flush)
            waiting = self._asked[key] = []
            self._wanted += 1
        future: asyncio.Future[Entry | None] = loop.create_future()
        waiting.append(future)
        return future

    async def on_hit(self, key: str, entry: Entry, terms: Terms) -> None:
        """There is no slower tier, and what was found here is here."""

    async def on_miss(self, key: str, entry: Entry, terms: Terms) -> bool:
        """It was made: have it written, if its body is in memory."""
        return isinstance(entry.body, bytes) and self.write(key, entry, entry.body)

    async def remove(self, key: str) -> bool:
        """Forget it, and that anybody makes it; False as well where that cannot be told."""
        try:
            await self.writes.delete(lease_of(key))
            return await self.writes.delete(_name(key))
        except StreamGateError:
            return False

    def write(self, key: str, entry: Entry, body: bytes, done: Callable[[bool], None] | None = None) -> bool:
        """Have it written, and then tell ``done`` whether it is; False where it is left out, and nobody is told."""
        compress = entry.compressible or entry.tag == INDEX
        fits = len(body) <= (TEXT_LIMIT if compress else self.limit)
        if not fits or self._queued + len(body) > _BUFFERED:
            self._telemetry.count("redis_writes", result="dropped")
            return False
        if not self._writers:
            self._writers = [asyncio.ensure_future(self._write()) for _ in range(_WRITERS)]
        self._queued += len(body)
        self._queue.put_nowait(_Write(key, entry, body, compress, done))
        return True

    # --- reading

    def _flush(self) -> None:
        """Ask for what was wanted in this turn of the loop, each key once."""
        asked, self._asked = self._asked, {}
        keys = list(asked)
        for at in range(0, len(keys), _TOGETHER):
            task = asyncio.ensure_future(self._fetch({key: asked[key] for key in keys[at : at + _TOGETHER]}))
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)

    async def _fetch(self, asked: dict[str, list[asyncio.Future[Entry | None]]]) -> None:
        found: list[bytes | None] = [None] * len(asked)
        try:
            found = await self._reads.get_many([_name(key) for key in asked])
        except StreamGateError:
            self._telemetry.count("redis_reads", len(asked), result="failed")
        finally:
            # Whatever went wrong, nobody is left waiting.
            self._wanted -= len(asked)
            if len(found) != len(asked):
                found = [None] * len(asked)
            for (key, futures), value in zip(asked.items(), found, strict=True):
                entry = None
                if value is not None:
                    try:
                        entry = self._entry(key, value)
                    except Exception:
                        _log.exception("a value of Redis could not be taken", key=_name(key))
                for future in futures:
                    if not future.done():
                        future.set_result(entry)

    def _entry(self, key: str, value: bytes) -> Entry | None:
        """What ``value`` holds; a damaged one is removed."""
        self._telemetry.count("redis_bytes", len(value), direction="read")
        try:
            entry = values.unpack(key, value, TEXT_LIMIT + _FIELDS)
        except values.Damaged as damage:
            _log.warning("a damaged value was thrown out of Redis", key=_name(key), reason=str(damage))
            self._telemetry.count("redis_reads", result="damaged")
            self._drop(key)
            return None
        if self.refuses(key, entry):
            self._telemetry.count("redis_reads", result="purged")
            self._drop(key)
            return None
        return entry

    def _drop(self, key: str) -> None:
        if len(self._removing) < _TOGETHER:
            task = asyncio.ensure_future(self.remove(key))
            self._removing.add(task)
            task.add_done_callback(self._removing.discard)

    # --- probing: names are drawn each time, so that a cluster's nodes are all asked in turn

    async def _probe_read(self) -> None:
        await self._reads.get_many([_probe_name()])

    async def _probe_write(self) -> None:
        await self.writes.put(_probe_name(), b"", _PROBE_S)

    # --- writing

    async def _write(self) -> None:
        while (write := await self._queue.get()) is not None:
            stored = False
            try:
                stored = await self._put(write)
            except Exception:
                _log.exception("a value could not be made for Redis")
            finally:
                self._queued -= len(write.body)
                if write.done is not None:
                    write.done(stored)

    async def _put(self, write: _Write) -> bool:
        def pack() -> bytes:
            return values.pack(write.key, write.entry, write.body, compress=write.compress)

        large = write.compress and len(write.body) > _INLINE
        try:
            value = await self._pool.run(pack) if large else pack()
            await self.writes.put(_name(write.key), value, self._ttl)
        except StreamGateError:  # of Redis, or no thread is free
            self._telemetry.count("redis_writes", result="failed")
            return False
        self._telemetry.count("redis_writes", result="stored")
        self._telemetry.count("redis_bytes", len(value), direction="written")
        return True


async def open_tier(settings: RedisSettings, pool: Pool, telemetry: Telemetry) -> RedisTier:
    """The tier in the Redis that ``settings`` name, whether or not it answers now. Raises ``config_invalid``."""
    from streamgate.storage.kv.redis import RedisStore
    from streamgate.storage.kv.redis_reads import RedisReads

    # A cache can be done without: nobody waits for a second call when one got no answer in time.
    cautious = settings.model_copy(update={"circuit_failures": 1, "circuit_slow": settings.timeout})
    reads = await RedisReads.open(cautious, _teller("read"))
    writes = await RedisStore.open(cautious, _teller("write"))
    tier = RedisTier(reads, writes, settings, pool, telemetry)
    tier.start()
    return tier


def _probe_name() -> str:
    return f"probe:{secrets.token_hex(8)}"


def lease_of(key: str) -> str:
    """The name of the lease of who makes it."""
    return f"lease:{_digest(key)}"


def _name(key: str) -> str:
    """The name of the value: of this format, and short."""
    return f"tier:{values.FORMAT}:{_digest(key)}"


def _digest(key: str) -> str:
    return blake2b(key.encode(), digest_size=16).hexdigest()


def _left_alone(circuit: Circuit) -> float:
    return float(circuit.state != "closed")


def _teller(use: str) -> Callable[[str], None]:
    """What logs when a circuit opens and closes, and not each attempt in between."""
    before = "closed"

    def changed(state: str) -> None:
        nonlocal before
        if "closed" in (before, state):
            _log.warning("the circuit of Redis has changed", use=use, state=state)
        before = state

    return changed
