"""Reads of many values a second from Redis: over one connection, one behind another, without waiting for the answers before.

The client makes the connection (TLS, user, database); from then on the bytes are ours, for its way to a value costs more than
the value.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
from redis.asyncio import Redis
from redis.exceptions import RedisError

from streamgate.core.settings import RedisSettings
from streamgate.errors import StreamGateError
from streamgate.storage.circuit import Circuit
from streamgate.storage.kv.redis import RedisStore

_Answer = asyncio.Future[list[bytes | None]]


class RedisReads:
    """Made by :meth:`open`; for one event loop. Of a cluster the client itself reads."""

    def __init__(self, store: RedisStore, settings: RedisSettings) -> None:
        self._store = store
        self._timeout = settings.timeout
        self._name = settings.url
        self._line: _Line | None = None
        self._connecting: asyncio.Task[_Line] | None = None

    @classmethod
    async def open(cls, settings: RedisSettings, on_change: Callable[[str], None] | None = None) -> RedisReads:
        """For the Redis that ``settings`` name, whether or not it answers now. Raises ``config_invalid``."""
        return cls(await RedisStore.open(settings, on_change), settings)

    @property
    def circuit(self) -> Circuit:
        """While it is open, reads fail at once."""
        return self._store.circuit

    async def close(self) -> None:
        """Close the connection."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait((self._connecting,))
        if self._line is not None:
            self._line.cut("closed")
        await self._store.close()

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values in the order of ``keys``; raises ``store_unavailable``, at the latest after ``redis.timeout``."""
        if not isinstance(self._store.client, Redis):
            return await self._store.get_many(keys)
        return await self._store.circuit.call(lambda: self._ask([self._store.key(key) for key in keys]))

    async def _ask(self, names: list[str]) -> list[bytes | None]:
        try:
            line = self._line
            if line is None or line.lost:
                async with asyncio.timeout(self._timeout):
                    line = await self._connect()
            return await line.ask(names, self._timeout)
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            detail = " ".join(str(error).split()) or f"no answer within {self._timeout} s"
            raise StreamGateError("store_unavailable", f"{self._name}: {detail}") from error

    async def _connect(self) -> _Line:
        """A new connection, made once for all who want one now."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._make())
            self._connecting.add_done_callback(self._connected)
        return await asyncio.shield(self._connecting)

    async def _make(self) -> _Line:
        client = self._store.client
        assert isinstance(client, Redis)
        connection: Any = cast(Any, client.connection_pool).make_connection()
        await connection.connect()
        return _Line(connection)

    def _connected(self, task: asyncio.Task[_Line]) -> None:
        self._connecting = None
        if not task.cancelled() and task.exception() is None:
            self._line = task.result()


class _Line(asyncio.Protocol):
    """A connection that has said its greetings, and the answers that are to come, in their order."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._waiting: deque[_Answer] = deque()
        self._reader = hiredis.Reader()
        self._loop = asyncio.get_running_loop()
        self._transport = cast(asyncio.Transport, connection._writer.transport)
        self._transport.set_protocol(self)
        self._cut = False

    @property
    def lost(self) -> bool:
        """Whether it is of no use any more."""
        return self._cut or self._transport.is_closing()

    def ask(self, names: list[str], timeout: float) -> _Answer:
        """The values of ``names``; where they are not there within ``timeout`` s the connection is of no use any more."""
        try:
            self._transport.write(hiredis.pack_command(cast(Any, ("MGET", *names))))
        except RuntimeError as error:
            # uvloop: it is gone, and connection_lost is still to come.
            self.cut("the connection was lost")
            raise ConnectionError(str(error)) from error
        answer: _Answer = self._loop.create_future()
        self._waiting.append(answer)
        late = self._loop.call_later(timeout, self.cut, f"no answer within {timeout} s")
        answer.add_done_callback(lambda _: late.cancel())
        return answer

    def data_received(self, data: bytes) -> None:
        """Answers, or parts of them."""
        try:
            self._reader.feed(data)
            while (told := self._reader.gets()) is not False:
                answer = self._waiting.popleft()
                if answer.done():
                    pass  # nobody wants it any more
                elif isinstance(told, list):
                    answer.set_result(told)
                else:
                    answer.set_exception(ConnectionError(str(told)))
        except (hiredis.HiredisError, IndexError) as error:
            self.cut(f"what it says cannot be understood: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits is told."""
        self.cut("the connection was lost")

    def cut(self, reason: str) -> None:
        """End it."""
        self._cut = True
        self._transport.abort()
        self._connection._close()  # it would complain that nobody did
        while self._waiting:
            answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(ConnectionError(reason))
