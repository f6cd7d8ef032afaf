"""Sources in S3 and what speaks its protocol. aioboto3 signs, lists and writes; aiohttp moves the bytes."""

from __future__ import annotations

from pathlib import Path

from streamgate.core.settings.origin import S3Settings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.storage.objects.s3.address import parse
from streamgate.storage.objects.s3.bucket import Bucket
from streamgate.storage.objects.s3.digests import Digests
from streamgate.storage.objects.s3.replicas import ReplicatedStore
from streamgate.storage.objects.s3.store import S3Store

__all__ = ["ReplicatedStore", "S3Store", "open_s3"]

_DIGESTS = "replicas.sqlite"


async def open_s3(
    url: str, settings: S3Settings, telemetry: Telemetry | None = None, data: Path | None = None
) -> S3Store:
    """The store at ``url``, joined by the replicas of the settings; raises ``config_invalid``. Nothing is sent yet.

    What copies hold is remembered in the folder ``data``, if there is one.
    """
    addresses = [parse(address, settings) for address in (url, *settings.replicas)]
    if len(set(addresses)) < len(addresses):
        raise StreamGateError("config_invalid", "a replica is named twice")
    buckets: list[Bucket] = []
    try:
        for address in addresses:
            buckets.append(await Bucket.open(address, settings, telemetry))
    except BaseException:
        for bucket in buckets:
            await bucket.close()
        raise
    if len(buckets) == 1:
        return S3Store(buckets[0])
    return ReplicatedStore(buckets, await Digests.open(data / _DIGESTS if data is not None else None))
