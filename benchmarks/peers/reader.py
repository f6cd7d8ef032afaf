"""aioboto3 in the client's own process: what a program gets that reads from S3 itself."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import uvloop

from benchmarks.peers.passthrough import client, span
from benchmarks.peers.seaweed import BUCKET, Seaweed


class Reader(contextlib.AbstractContextManager["Reader"]):
    """One GET after the other over a connection that stays. ``key`` is an object of :data:`BUCKET`, spans are of bytes."""

    def __init__(self, s3: Seaweed) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._stack = contextlib.AsyncExitStack()
        keys = {"aws_access_key_id": s3.access, "aws_secret_access_key": s3.secret}
        made = client({**s3.options, **keys})
        self._client = self._runner.run(self._stack.enter_async_context(made))

    def read(self, key: str, start: int, length: int) -> bytes:
        """Bytes [start, start + length) of ``key``, by one GET."""
        return self._runner.run(self._read(key, start, length))

    def whole(self, key: str, spans: Sequence[tuple[int, int]]) -> list[float]:
        """Seconds that each of ``spans``, offset and length, takes until it is here."""
        return self._runner.run(self._whole(key, spans))

    def first_byte(self, key: str, spans: Sequence[tuple[int, int]]) -> float:
        """Seconds until all but the last of ``spans`` are here, and something of the last; the rest is read after that."""
        return self._runner.run(self._first_byte(key, spans))

    async def _read(self, key: str, start: int, length: int) -> bytes:
        answer = await self._get(key, start, length)
        async with answer["Body"] as body:
            return bytes(await body.read())

    async def _whole(self, key: str, spans: Sequence[tuple[int, int]]) -> list[float]:
        took = []
        for start, length in spans:
            began = time.perf_counter()
            await self._read(key, start, length)
            took.append(time.perf_counter() - began)
        return took

    async def _first_byte(self, key: str, spans: Sequence[tuple[int, int]]) -> float:
        began = time.perf_counter()
        for start, length in spans[:-1]:
            await self._read(key, start, length)
        answer = await self._get(key, *spans[-1])
        async with answer["Body"] as body:
            await body.content.readany()
            took = time.perf_counter() - began
            await body.read()
        return took

    def _get(self, key: str, start: int, length: int) -> Coroutine[Any, Any, dict[str, Any]]:
        found: Coroutine[Any, Any, dict[str, Any]] = self._client.get_object(
            Bucket=BUCKET, Key=key, Range=span(start, length)
        )
        return found

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()
