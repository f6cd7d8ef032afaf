"""What a key-value store is: values that expire, leases, one taker of many, and a feed that is read from where one stopped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from streamgate.storage.kv.events import Event, EventType, Position


class KeyValueStore(Protocol):
    """Every call raises ``store_unavailable`` where the store cannot be read or written in time.

    A call that raised may have been done all the same: what got lost may have been the answer.
    Times to live are in seconds; None: for ever.
    """

    async def get(self, key: str) -> bytes | None:
        """The value, or None where there is none any more."""

    async def put(self, key: str, value: bytes, ttl: float | None = None) -> None:
        """Set a value."""

    async def put_new(self, key: str, value: bytes, ttl: float | None = None) -> bool:
        """Set a value where there is none; whether it was. Of several at once exactly one succeeds."""

    async def take(self, key: str) -> bytes | None:
        """The value, which is then gone. Of several at once exactly one gets it."""

    async def delete(self, key: str) -> bool:
        """Remove a value; whether there was one."""

    async def lease(self, name: str, holder: bytes, ttl: float) -> bool:
        """Take or extend the lease ``name``; False where another holder has it."""

    async def release(self, name: str, holder: bytes) -> bool:
        """Give a lease back; False where the holder had it no longer."""

    async def append(self, type: EventType, subject: bytes, until: int | None) -> int:
        """Add an event; its id, higher than that of every earlier one. Raises ValueError for a type that is none."""

    async def adopt(self, events: Iterable[Event]) -> int:
        """Add events that have a uid, in this order: all of those that are not here yet, or none; how many these were.

        Raises ValueError for a type that is none.
        """

    async def events(self, after: Position | None = None, limit: int = 10_000) -> tuple[list[Event], Position]:
        """The next events that matter still, and where they end; from the start where the store is another than ``after``'s.

        A store is another when it began anew, and when it may have lost what it had confirmed: its incarnation tells.
        """

    async def drop(self, events: Iterable[Event]) -> int:
        """Remove these events, for a later one says all that they said; how many there were."""

    async def prune(self) -> int:
        """Remove what has ended; how much was removed."""

    async def close(self) -> None:
        """Let go of files and connections."""
