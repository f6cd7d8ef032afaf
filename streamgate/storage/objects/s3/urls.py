"""Signed addresses of objects, kept until half of their life is over. They are secrets: whoever knows one can read."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from yarl import URL

from streamgate.storage.objects.s3.client import Client

_MAX_KEPT = 10_000


class SignedUrls:
    """One address for all ranges of an object: Range and If-Match are not part of what is signed."""

    def __init__(self, client: Client, lifetime: float) -> None:
        self._client = client
        self._keep = lifetime / 2
        self._kept: OrderedDict[str, tuple[URL, float]] = OrderedDict()

    async def get(self, key: str) -> tuple[URL, bool]:
        """(address, whether it was signed just now); raises :class:`~.errors.OriginError`."""
        now = asyncio.get_running_loop().time()
        kept = self._kept.get(key)
        if kept is not None and now < kept[1]:
            self._kept.move_to_end(key)
            return kept[0], False
        url = URL(await self._client.sign(key), encoded=True)
        self._kept[key] = (url, now + self._keep)
        self._kept.move_to_end(key)
        while len(self._kept) > _MAX_KEPT:
            self._kept.popitem(last=False)
        return url, True

    def forget(self, key: str) -> None:
        """Sign anew the next time: the store did not take it."""
        self._kept.pop(key, None)
