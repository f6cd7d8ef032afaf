"""Several buckets with the same objects as one store: read from the first that is well, never from one that disagrees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from structlog import get_logger

from streamgate.storage.objects.s3.bucket import Bucket
from streamgate.storage.objects.s3.digests import Digests
from streamgate.storage.objects.s3.errors import OriginError
from streamgate.storage.objects.s3.health import Health
from streamgate.storage.objects.s3.listing import listed
from streamgate.storage.objects.s3.reading import Route
from streamgate.storage.objects.s3.store import S3Store
from streamgate.storage.objects.s3.versions import Version, Versions
from streamgate.storage.objects.store import ObjectInfo, check_key

_log = get_logger("streamgate.objects")


class ReplicatedStore(S3Store):
    """The first bucket is the one that is written to, and the truth while it can be asked.

    An object's ``etag`` is the one that its copies share. Where their ETags differ and size, index and blocks are the
    same, it is a digest of those, which is remembered in ``digests``. A copy that differs is left out and reported.
    """

    def __init__(self, buckets: Sequence[Bucket], digests: Digests) -> None:
        super().__init__(buckets[0])
        self.name = ", ".join(bucket.name for bucket in buckets)
        self.buckets = tuple(buckets)
        self.versions = Versions(digests)
        self._digests = digests
        self.health = {bucket: self._health(bucket) for bucket in buckets}
        self._last_key: dict[Bucket, str] = {}

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """All objects of the first bucket that answers."""
        errors = []
        for bucket in self.in_order():
            try:
                found = await listed(bucket, prefix)
            except OriginError as e:
                self.note(bucket, e)
                errors.append(e)
                continue
            for info in found:
                yield self.versions.named(bucket, info)
            return
        raise errors[0]

    async def stat(self, key: str) -> ObjectInfo:
        """HEAD to all buckets that are up, at once; those that do not answer in time count as failed."""
        return (await self._look(check_key(key))).info

    async def agreed(self, info: ObjectInfo) -> ObjectInfo:
        """What was listed, by the name that its copies share; they are compared now where nobody has done that yet.

        Raises as :meth:`stat`, and ``source_changed``.
        """
        version = self.versions.get(info.key, info.etag) or await self._look(info.key)
        if not version.called(info.etag):
            raise OriginError("source_changed", f"{info.key}: another version is there now")
        return version.info

    async def close(self) -> None:
        """Give back the connections."""
        await asyncio.gather(*(health.close() for health in self.health.values()))
        await asyncio.gather(*(bucket.close() for bucket in self.buckets))
        await self._digests.close()

    def in_order(self) -> Sequence[Bucket]:
        """Those that are well first, each in the order of the settings."""
        return sorted(self.buckets, key=lambda bucket: not self.health[bucket].up)

    def note(self, bucket: Bucket, error: OriginError | None) -> None:
        """How a request to a bucket went."""
        if error is None or error.code in ("source_not_found", "source_changed"):
            self.health[bucket].answered()
        elif error.code != "overloaded":
            self.health[bucket].failed()

    async def _route(self, key: str, etag: str | None) -> Route:
        version = self.versions.get(key, etag) if etag is not None else None
        if version is None or not any(self.health[bucket].up for bucket in version.etags):
            try:
                latest = await self._look(key)
            except OriginError as e:
                if version is None or not version.etags or e.code not in ("origin_unavailable", "origin_untrusted"):
                    raise
            else:
                if etag is not None and not latest.called(etag):
                    raise OriginError("source_changed", f"{key}: another version is there now")
                version = latest
        for bucket in version.etags:
            self._last_key[bucket] = key
        return _Replicas(self, version)

    async def _look(self, key: str) -> Version:
        """Which version is there, and where."""
        found, errors = await self._heads(key)
        missing = {bucket for bucket, error in errors.items() if error.code == "source_not_found"}
        answered = found.keys() | missing
        truth = next((bucket for bucket in self.buckets if bucket in answered), None)
        if truth is None or truth in missing:
            raise errors[truth or self.buckets[0]]
        latest = self.versions.latest(key)
        if latest is not None and truth is not self.buckets[0] and found[truth].modified <= latest.info.modified:
            # Not the first bucket, and not newer: it may only be what was there before.
            if not await self.versions.agree(latest, truth, found[truth]):
                self.versions.leave_out(truth, latest, found[truth].etag)
                raise OriginError("origin_unavailable", f"{key}: only an older version can be read", again=True)
        made = await self.versions.make(key, truth, found)
        for bucket in missing:
            self.versions.leave_out(bucket, made, "")
        return self.versions.remember(key, made, answered)

    async def _heads(self, key: str) -> tuple[dict[Bucket, ObjectInfo], dict[Bucket, OriginError]]:
        asked = [bucket for bucket in self.buckets if self.health[bucket].up] or [*self.buckets]
        found: dict[Bucket, ObjectInfo] = {}
        errors = {
            bucket: OriginError("origin_unavailable", f"{bucket.name}: it does not answer") for bucket in self.buckets
        }

        async def head(bucket: Bucket) -> None:
            try:
                found[bucket] = await bucket.stat(key)
            except OriginError as e:
                errors[bucket] = e

        tasks = [asyncio.create_task(head(bucket)) for bucket in asked]
        try:
            # Once the first has answered, the others had their time.
            await asyncio.wait(tasks[:1], timeout=self._settings.stall_timeout)
            await asyncio.wait(tasks, timeout=self._settings.connect_timeout)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for bucket, task in zip(asked, tasks, strict=True):
            if not task.cancelled():
                task.result()
            self.note(bucket, None if bucket in found else errors[bucket])
        for bucket in found:
            self._last_key[bucket] = key
            del errors[bucket]
        return found, errors

    def _health(self, bucket: Bucket) -> Health:
        async def probe() -> bool:
            key = self._last_key.get(bucket)
            try:
                if key is None:
                    await bucket.client.call("head_bucket")
                else:
                    (await bucket.get(key, 0, 1, None, self._settings.deadline)).close()
            except OriginError as e:
                return e.code == "source_not_found"
            return True

        def changed(up: bool) -> None:
            if bucket.telemetry is not None:
                bucket.telemetry.gauge("origin_replicas_down", -1 if up else 1)
            tell = _log.info if up else _log.warning
            tell("a bucket is well again" if up else "a bucket is down", store=bucket.name)

        return Health(self._settings, probe, changed)


class _Replicas:
    """The way of one reading through the buckets that hold its version."""

    def __init__(self, store: ReplicatedStore, version: Version) -> None:
        self._store = store
        self._version = version
        self._etags = dict(version.etags)
        self._tried: set[Bucket] = set()

    def pick(self) -> tuple[Bucket, str | None]:
        """The first of those that were not tried yet."""
        bucket = self._left()[0]
        return bucket, self._etags[bucket]

    def second(self) -> tuple[Bucket, str | None]:
        """The one after it, or it again."""
        bucket = self._left()[:2][-1]
        return bucket, self._etags[bucket]

    def answered(self, bucket: Bucket, info: ObjectInfo) -> ObjectInfo:
        """As the store tells it, whichever bucket it comes from."""
        self._store.note(bucket, None)
        return self._version.info

    def options(self) -> int:
        """Those that were not tried yet."""
        return len(self._left())

    def failed(self, bucket: Bucket, error: OriginError) -> tuple[OriginError, bool]:
        """To the next bucket at once; after the last, to the first again after a pause."""
        store = self._store
        store.note(bucket, error)
        if error.code in ("source_changed", "source_not_found"):
            if bucket is store.buckets[0] or len(self._etags) == 1:
                return error, False
            store.versions.leave_out(bucket, self._version, "")
            del self._etags[bucket]
            error = OriginError("origin_unavailable", f"{error.detail} ({bucket.name})", again=True)
        self._tried.add(bucket)
        if self._etags.keys() - self._tried:
            return OriginError(error.code, error.detail, again=True), True
        self._tried.clear()
        return error, False

    def _left(self) -> list[Bucket]:
        return [bucket for bucket in self._store.in_order() if bucket in self._etags and bucket not in self._tried]
