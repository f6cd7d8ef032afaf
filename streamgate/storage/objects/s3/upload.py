"""Writing objects: in one request where they are small, else in parts, and always whole or not at all."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable
from email.utils import parsedate_to_datetime
from typing import Any

from structlog import get_logger

from streamgate.errors import StreamGateError
from streamgate.storage.objects.s3.answers import head_info, plain_etag
from streamgate.storage.objects.s3.bucket import Bucket
from streamgate.storage.objects.s3.errors import OriginError
from streamgate.storage.objects.store import ObjectInfo

_log = get_logger("streamgate.objects")

_MAX_PARTS = 10_000  # of S3
_MARK = "streamgate-write"


async def uploaded(
    bucket: Bucket, key: str, data: bytes | AsyncIterable[bytes], condition: dict[str, str]
) -> ObjectInfo:
    """``condition``: botocore's IfMatch or IfNoneMatch, or nothing. Raises ``precondition_failed``, ``source_too_complex``.

    At most two parts are in memory.
    """
    # So that our own work is known again if the answer to it is lost.
    marked: dict[str, Any] = {"Metadata": {_MARK: secrets.token_hex(16)}}
    parts = _parts(data, bucket.settings.part_size)
    first = await anext(parts, b"")
    second = await anext(parts, None)
    if second is None:
        parameters = {"Body": first, **condition, **(marked if condition else {})}
        send = bucket.client.call("put_object", key, size=len(first), **parameters)
        return await _settled(bucket, key, len(first), send, condition, marked)
    started = await bucket.client.call("create_multipart_upload", key, **marked)
    where: dict[str, Any] = {"UploadId": started["UploadId"]}
    made: list[dict[str, Any]] = []
    size = 0

    async def add(part: bytes) -> None:
        nonlocal size
        if len(made) == _MAX_PARTS:
            limit = _MAX_PARTS * bucket.settings.part_size
            raise StreamGateError("source_too_complex", f"{key}: more than {limit} bytes")
        number = len(made) + 1
        done = await bucket.client.call("upload_part", key, size=len(part), PartNumber=number, Body=part, **where)
        made.append({"PartNumber": number, "ETag": done["ETag"]})
        size += len(part)

    try:
        await add(first)
        await add(second)
        del first, second
        async for part in parts:
            await add(part)
        whole = {"MultipartUpload": {"Parts": made}, **where, **condition}
        send = bucket.client.call("complete_multipart_upload", key, **whole)
        return await _settled(bucket, key, size, send, condition, marked)
    except BaseException:
        # What was uploaded would be kept, and paid for, without ever being seen.
        await asyncio.shield(asyncio.create_task(_abandon(bucket, key, where)))
        raise


async def _settled(
    bucket: Bucket,
    key: str,
    size: int,
    send: Awaitable[dict[str, Any]],
    condition: dict[str, str],
    marked: dict[str, Any],
) -> ObjectInfo:
    """``send`` is the request after which the object is there; one that only finds its own work done has not failed."""
    try:
        done = await send
    except OriginError as e:
        if e.code not in ("source_changed", "source_not_found"):
            raise
        try:
            there = await bucket.client.call("head_object", key)
            if there.get("Metadata", {}).get(_MARK) == marked["Metadata"][_MARK]:
                return head_info(key, there)
        except OriginError as other:
            if other.code != "source_not_found":
                raise
        if not condition:
            raise
        raise StreamGateError("precondition_failed", f"{key}: the version there is not the one expected") from None
    return ObjectInfo(key, size, plain_etag(key, str(done.get("ETag", ""))), _date(done))


async def _abandon(bucket: Bucket, key: str, where: dict[str, Any]) -> None:
    try:
        await bucket.client.call("abort_multipart_upload", key, **where)
    except OriginError as e:
        if e.code != "source_not_found":
            _log.warning("parts of an upload are left in the bucket", store=bucket.name, key=key, code=e.code)


def _date(answer: dict[str, Any]) -> float:
    """When the store wrote it, by its own clock."""
    try:
        told = answer["ResponseMetadata"]["HTTPHeaders"]["date"]
        return parsedate_to_datetime(told).timestamp()
    except (KeyError, TypeError, ValueError):
        return time.time()


async def _parts(data: bytes | AsyncIterable[bytes], size: int) -> AsyncIterator[bytes]:
    """All of it in parts of ``size`` bytes, the last one shorter."""
    if isinstance(data, bytes):
        for at in range(0, len(data), size):
            yield data[at : at + size]
        return
    held = bytearray()
    async for piece in data:
        held += piece
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)
