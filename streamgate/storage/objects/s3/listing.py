"""All objects below a prefix."""

from __future__ import annotations

from typing import Any

from streamgate.errors import StreamGateError
from streamgate.storage.objects.s3.answers import head_info
from streamgate.storage.objects.s3.bucket import Bucket
from streamgate.storage.objects.store import ObjectInfo, is_key


async def listed(bucket: Bucket, prefix: str) -> list[ObjectInfo]:
    """By the bytes of their keys, an order that not every service keeps to; a request for each thousand.

    Raises :class:`~.errors.OriginError`, and ``listing_too_long`` beyond the limit.
    """
    whole = bucket.address.prefix
    limit = bucket.settings.list_limit
    found: list[ObjectInfo] = []
    seen = 0
    more: dict[str, Any] = {}
    while True:
        answer = await bucket.client.call("list_objects_v2", Prefix=whole + prefix, **more)
        for row in answer.get("Contents", ()):
            key = str(row["Key"]).removeprefix(whole)
            seen += 1
            if seen > limit:
                raise StreamGateError("listing_too_long", f"{bucket.name}: more than {limit} objects")
            if is_key(key):  # no folder's marker
                found.append(head_info(key, {**row, "ContentLength": row["Size"]}))
        token = answer.get("NextContinuationToken")
        if not answer.get("IsTruncated") or not token or token == more.get("ContinuationToken"):
            break
        more = {"ContinuationToken": token}
    return sorted(found, key=lambda info: info.key.encode())
