"""What a cache tier is. Tiers are asked from the fastest to the slowest, and told what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from edge.entries import Entry


@dataclass(frozen=True, slots=True)
class Terms:
    """How an entry is given away: ``scope`` is Cache-Control's, ``route`` the class that metrics know it by.

    ``until``: seconds since 1970 up to which it may go out without another look at what it was made from; None: for ever.
    """

    scope: str = "public"
    route: str = "other"
    until: int | None = None


class CacheTier(Protocol):
    """A place where entries are kept by their key. No call raises for what the tier's own medium does wrong: that is a miss."""

    name: str

    async def lookup(self, key: str) -> Entry | None:
        """The entry, if it is here and whole."""

    async def on_hit(self, key: str, entry: Entry, terms: Terms) -> None:
        """It was found, here or in a slower tier, and is to be sent on these terms: take it, where that pays."""

    async def on_miss(self, key: str, entry: Entry, terms: Terms) -> bool:
        """It was in no tier and has been made: take it, where that pays; whether it is here now."""

    async def remove(self, key: str) -> bool:
        """Forget it; whether it was here."""
