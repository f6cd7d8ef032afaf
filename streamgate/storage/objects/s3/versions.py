"""Which buckets hold the same version of an object, found out once and remembered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from structlog import get_logger

from streamgate.storage.objects.s3.bucket import Bucket
from streamgate.storage.objects.s3.digests import Copy, Digests
from streamgate.storage.objects.s3.errors import OriginError
from streamgate.storage.objects.s3.fingerprint import fingerprint
from streamgate.storage.objects.s3.reading import OneBucket, RangeReading
from streamgate.storage.objects.s3.retries import Patience
from streamgate.storage.objects.store import ObjectInfo

_log = get_logger("streamgate.objects")
V = TypeVar("V")

_REMEMBERED = 50_000


class _Memory(OrderedDict[tuple[str, ...], V], Generic[V]):
    """What was found out of the objects last used."""

    def remember(self, key: tuple[str, ...], value: V) -> V:
        self[key] = value
        self.move_to_end(key)
        if len(self) > _REMEMBERED:
            self.popitem(last=False)
        return value


@dataclass
class Version:
    """One version of an object: ``info`` as the store tells it, and its ETag in each bucket that is known to hold it."""

    info: ObjectInfo
    etags: dict[Bucket, str] = field(default_factory=dict)

    def called(self, etag: str) -> bool:
        """Whether ``etag`` is its name, or was the name of one of its copies."""
        return etag == self.info.etag or etag in self.etags.values()


class Versions:
    """Copies are of one version if size and ETag agree, or size and fingerprint do; the latter are in ``digests``."""

    def __init__(self, digests: Digests) -> None:
        self._digests = digests
        self._made: _Memory[Version] = _Memory()  # by (key, its name)
        self._latest: _Memory[Version] = _Memory()  # by key
        self._left_out: _Memory[bool] = _Memory()  # by (bucket, key, ETag there, the version's name)

    def get(self, key: str, etag: str) -> Version | None:
        """The version called ``etag``."""
        return self._made.get((key, etag))

    def latest(self, key: str) -> Version | None:
        """What was there last."""
        return self._latest.get((key,))

    async def make(self, key: str, truth: Bucket, found: Mapping[Bucket, ObjectInfo]) -> Version:
        """The version that ``truth`` holds, in all buckets of ``found`` that hold it too; the others are left out."""
        made = Version(found[truth], {truth: found[truth].etag})
        others = {bucket: info for bucket, info in found.items() if bucket is not truth}
        differing = {bucket: info for bucket, info in others.items() if not await self.agree(made, bucket, info)}
        made.etags |= {bucket: info.etag for bucket, info in others.items() if bucket not in differing}
        digest, shared = await self._digests.look(_copy(truth, made.info)) or ("", False)
        if digest and (shared or len(set(made.etags.values())) > 1):
            for bucket in made.etags:
                await self._digests.keep(_copy(bucket, found[bucket]), digest, True)
            made.info = replace(made.info, etag=digest)
        for bucket, info in differing.items():
            self.leave_out(bucket, made, info.etag)
        return made

    def remember(self, key: str, made: Version, answered: set[Bucket]) -> Version:
        """Take ``made`` for the latest; what buckets held that have not ``answered`` now is still known."""
        before = self.get(key, made.info.etag)
        if before is not None:
            made.etags = {b: etag for b, etag in before.etags.items() if b not in answered} | made.etags
            made.info = before.info
        self._latest.remember((key,), made)
        return self._made.remember((key, made.info.etag), made)

    async def agree(self, version: Version, bucket: Bucket, info: ObjectInfo) -> bool:
        """Whether what a bucket holds is this version."""
        if info.size != version.info.size:
            return False
        if version.called(info.etag):
            return True
        mine = await self._digest(bucket, info)
        if mine is None or mine == version.info.etag:
            return mine is not None
        for other, etag in [*version.etags.items()]:
            if await self._digest(other, replace(info, etag=etag)) == mine:
                return True
        return False

    def leave_out(self, bucket: Bucket, version: Version, its_etag: str) -> None:
        """A bucket's copy is another, or missing (""): read nothing from it, and say so once."""
        version.etags.pop(bucket, None)
        key = version.info.key
        known = (bucket.name, key, its_etag, version.info.etag)
        if known not in self._left_out:
            self._left_out.remember(known, True)
            bucket.count("origin_replicas_left_out")
            _log.warning("a bucket disagrees and is left out", store=bucket.name, key=key, missing=not its_etag)

    def named(self, bucket: Bucket, info: ObjectInfo) -> ObjectInfo:
        """A bucket's object as the store tells it, by what is known."""
        digest, shared = self._digests.known(_copy(bucket, info)) or ("", False)
        return replace(info, etag=digest) if shared else info

    async def _digest(self, bucket: Bucket, info: ObjectInfo) -> str | None:
        """The fingerprint of a copy, read once; None where it cannot be read now."""
        copy = _copy(bucket, info)
        if (known := await self._digests.look(copy)) is not None:
            return known[0]

        async def read(offset: int, length: int) -> bytes:
            patience = Patience(bucket.settings)
            reading = RangeReading(OneBucket(bucket, info.etag), info.key, offset, length, patience)
            try:
                await reading.open()
                return b"".join([piece async for piece in reading])
            finally:
                reading.close()

        try:
            digest = await fingerprint(info.size, read)
        except OriginError as e:
            _log.warning("a copy cannot be compared", store=bucket.name, key=info.key, code=e.code)
            return None
        await self._digests.keep(copy, digest, False)
        return digest


def _copy(bucket: Bucket, info: ObjectInfo) -> Copy:
    return (bucket.name, info.key, info.etag, info.size)
