"""Tokens that count for one request (catreplay 1): who takes one first, of all workers, and of all nodes of a site."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from streamgate.core.settings import Settings
from streamgate.errors import StreamGateError
from streamgate.storage.kv.sqlite import SqliteStore
from streamgate.storage.kv.store import KeyValueStore

_MARGIN_S = 120  # by which clocks of nodes may differ, and more
_KEY = "once/"


class Once:
    """What was used: in the Redis that the site shares, and in the machine's store at :attr:`path`; opened when first asked.

    A Redis may forget what it was told; what was used on this machine stays used there.
    """

    def __init__(self, settings: Settings) -> None:
        self.path: Path | None = None
        """The machine's store; None: there is none that all processes share."""
        self._settings = settings
        self._stores: list[KeyValueStore] | None = None
        self._opening = asyncio.Lock()

    @property
    def ready(self) -> bool:
        """Whether there is a store to ask."""
        return self.path is not None or bool(self._settings.redis.url)

    async def take(self, issuer: str, handle: bytes, end: int, now: int) -> bool:
        """Whether nobody has taken the token before; ``end`` and ``now`` in s since 1970.

        Raises ``store_unavailable``, and then it may have been taken all the same; and ``token_unsupported`` for one that
        ends later than a use is remembered.
        """
        if end - now > self._settings.conditions.once_life:
            raise StreamGateError("token_unsupported", "it ends too late to be one that may be used once")
        name = hashlib.sha256(len(issuer.encode()).to_bytes(4, "big") + issuer.encode() + handle).hexdigest()
        for store in await self._opened():
            if not await store.put_new(f"{_KEY}{name}", b"", ttl=max(0, end - now) + _MARGIN_S):
                return False
        return True

    async def close(self) -> None:
        """Let go of the stores."""
        stores, self._stores = self._stores, None
        for store in stores or ():
            await store.close()

    async def _opened(self) -> list[KeyValueStore]:
        async with self._opening:
            if self._stores is None:
                self._stores = await self._open()
            return self._stores

    async def _open(self) -> list[KeyValueStore]:
        # What is more likely to be away is asked first: then nothing was used up.
        stores: list[KeyValueStore] = []
        if self._settings.redis.url:
            from streamgate.storage.kv.redis import RedisStore  # only where the settings name one

            stores.append(await RedisStore.open(self._settings.redis))
        if self.path is not None:
            try:
                stores.append(await SqliteStore.open(self.path))
            except BaseException:
                for store in stores:
                    await store.close()
                raise
        return stores
