"""Rows that are written under a condition, and many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol


class Anything:
    """The type of :data:`ANY`."""


ANY: Final = Anything()
"""Whatever is there, and nothing, too."""


@dataclass(frozen=True, slots=True)
class Write:
    """Set ``key`` where its value is ``expected`` (None: where it has none); ``ttl`` in seconds, None: for ever."""

    key: str
    value: bytes
    ttl: float | None
    expected: bytes | None | Anything = ANY


class RowStore(Protocol):
    """Both calls raise ``store_unavailable``."""

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values in the order of ``keys``."""

    async def write(self, writes: Sequence[Write]) -> list[bool]:
        """Do these; which of them were done, and not refused for what was there instead."""


class Grouped:
    """Writes to ``store`` that come while others are under way are done together: one wait for the disk is enough for all."""

    def __init__(self, store: RowStore) -> None:
        self._store = store
        self._waiting: list[tuple[Sequence[Write], asyncio.Future[list[bool]]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values in the order of ``keys``."""
        return await self._store.get_many(keys)

    async def write(self, writes: Sequence[Write]) -> list[bool]:
        """As the store's; whoever is cancelled meanwhile may find it done all the same."""
        done: asyncio.Future[list[bool]] = asyncio.get_running_loop().create_future()
        self._waiting.append((writes, done))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return await done

    async def _write(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                try:
                    told = await self._store.write([each for writes, _ in group for each in writes])
                except Exception as error:
                    for _, done in group:
                        if not done.done():
                            done.set_exception(error)
                    continue
                at = 0
                for writes, done in group:
                    if not done.done():
                        done.set_result(told[at : at + len(writes)])
                    at += len(writes)
        finally:
            self._writing = None
