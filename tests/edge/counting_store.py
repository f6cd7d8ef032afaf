"""A store that counts what is asked of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from itertools import pairwise
from typing import Any

from streamgate.errors import StreamGateError
from streamgate.storage.objects.store import ObjectInfo, ObjectStore, Reading


class CountingStore:
    """``inner`` with a record of reads (key, offset, length asked for) and other calls; ``failing``: what every call raises."""

    def __init__(self, inner: ObjectStore) -> None:
        self.name = inner.name
        self.inner = inner
        self.reads: list[tuple[str, int, int]] = []
        self.stats: list[str] = []
        self.lists = 0
        self.failing: StreamGateError | None = None

    def reads_of(self, suffix: str) -> list[tuple[int, int]]:
        """Offset and length of each read of the object whose key ends so."""
        return [(offset, length) for key, offset, length in self.reads if key.endswith(suffix)]

    def twice(self, suffix: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """Reads of one object that share a byte."""
        spans = sorted((offset, offset + length) for offset, length in self.reads_of(suffix))
        return [(one, other) for one, other in pairwise(spans) if other[0] < one[1]]

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        self.lists += 1
        self._fail()
        async for each in self.inner.list(prefix):
            yield each

    async def stat(self, key: str) -> ObjectInfo:
        self.stats.append(key)
        self._fail()
        return await self.inner.stat(key)

    def reading(
        self, key: str, offset: int = 0, length: int | None = None, *, etag: str | None = None
    ) -> AbstractAsyncContextManager[Reading]:
        self.reads.append((key, offset, -1 if length is None else length))
        self._fail()
        return self.inner.reading(key, offset, length, etag=etag)

    async def read(self, key: str, offset: int = 0, length: int | None = None, *, etag: str | None = None) -> bytes:
        self.reads.append((key, offset, -1 if length is None else length))
        self._fail()
        return await self.inner.read(key, offset, length, etag=etag)

    async def read_into(
        self,
        key: str,
        offset: int,
        buffer: memoryview,
        *,
        etag: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> ObjectInfo:
        self.reads.append((key, offset, len(buffer)))
        self._fail()
        return await self.inner.read_into(key, offset, buffer, etag=etag, progress=progress)

    async def put(self, key: str, data: Any, *, only_new: bool = False, etag: str | None = None) -> ObjectInfo:
        return await self.inner.put(key, data, only_new=only_new, etag=etag)

    async def delete(self, key: str) -> None:
        await self.inner.delete(key)

    async def close(self) -> None:
        await self.inner.close()

    def _fail(self) -> None:
        if self.failing is not None:
            raise StreamGateError(self.failing.code, self.failing.detail)
