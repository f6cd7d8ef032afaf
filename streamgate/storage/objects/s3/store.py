"""A bucket, or a part of one, as a store of objects."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

from streamgate.core.settings.origin import S3Settings
from streamgate.storage.objects.s3.bucket import Bucket
from streamgate.storage.objects.s3.errors import OriginError
from streamgate.storage.objects.s3.listing import listed
from streamgate.storage.objects.s3.memory import MemoryBudget
from streamgate.storage.objects.s3.reading import OneBucket, RangeReading, Route
from streamgate.storage.objects.s3.retries import Patience
from streamgate.storage.objects.s3.upload import uploaded
from streamgate.storage.objects.store import ObjectInfo, Progress, Reading, check_key, in_one_piece


@dataclass
class _Nothing:
    """No byte of an object, but which one it is."""

    info: ObjectInfo

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self.info.size < 0:
            yield b""


class S3Store:
    """One bucket; see :class:`~streamgate.storage.objects.store.ObjectStore`."""

    def __init__(self, bucket: Bucket) -> None:
        self.name = bucket.name
        self._bucket = bucket
        self._settings: S3Settings = bucket.settings
        self._memory = MemoryBudget(bucket.settings.memory)

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """All objects below ``prefix``, by key; held in memory until they are sorted."""
        for info in await listed(self._bucket, prefix):
            yield info

    async def stat(self, key: str) -> ObjectInfo:
        """One HEAD request."""
        return await self._bucket.stat(check_key(key))

    @contextlib.asynccontextmanager
    async def reading(
        self, key: str, offset: int = 0, length: int | None = None, *, etag: str | None = None
    ) -> AsyncIterator[Reading]:
        """One GET request, and further ones where it breaks; HEAD where no byte is asked for."""
        check_key(key)
        if length == 0:
            info = await self.stat(key)
            if etag is not None and info.etag != etag:
                raise OriginError("source_changed", f"{key}: another version is there now")
            yield _Nothing(info)
            return
        reading = RangeReading(await self._route(key, etag), key, offset, length, Patience(self._settings))
        try:
            await reading.open()
            yield reading
        finally:
            reading.close()

    async def read(self, key: str, offset: int = 0, length: int | None = None, *, etag: str | None = None) -> bytes:
        """The same in one piece."""
        limit = self._settings.read_limit
        async with (
            self._memory.hold(limit if length is None else min(length, limit)) as enough,
            self.reading(key, offset, length, etag=etag) as reading,
        ):
            enough(max(0, reading.info.size - offset))
            return await in_one_piece(reading, offset, length, limit)

    async def read_into(
        self, key: str, offset: int, buffer: memoryview, *, etag: str | None = None, progress: Progress | None = None
    ) -> ObjectInfo:
        """One GET request, and further ones where it breaks, received in place; see :mod:`.receiving`."""
        reading = RangeReading(
            await self._route(check_key(key), etag), key, offset, len(buffer), Patience(self._settings)
        )
        try:
            await reading.open()
            await reading.into(buffer, progress)
            return reading.info
        finally:
            reading.close()

    async def put(
        self, key: str, data: bytes | AsyncIterable[bytes], *, only_new: bool = False, etag: str | None = None
    ) -> ObjectInfo:
        """PUT, or an upload in parts; the condition is checked by the service when the object is made."""
        condition = {"IfNoneMatch": "*"} if only_new else {"IfMatch": f'"{etag}"'} if etag is not None else {}
        return await uploaded(self._bucket, check_key(key), data, condition)

    async def delete(self, key: str) -> None:
        """DELETE."""
        try:
            await self._bucket.client.call("delete_object", check_key(key))
        except OriginError as e:
            if e.code != "source_not_found":
                raise

    async def close(self) -> None:
        """Give back the connections."""
        await self._bucket.close()

    async def _route(self, key: str, etag: str | None) -> Route:
        return OneBucket(self._bucket, etag)
