"""The feed: what every process must hear of, in one order, to be read from where one stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

EventType = Literal[
    "purge",
    "revoke.session",
    "revoke.grant",
    "revoke.account",
    "revoke.entitlement",
    "revoke.asset",
    "revoke.key",
    "revoke.token",
]

EVENT_TYPES: frozenset[str] = frozenset(get_args(EventType))


@dataclass(frozen=True, slots=True)
class Event:
    """One entry: ``until`` (s since 1970) is when it no longer matters; None: never."""

    id: int
    type: EventType
    subject: bytes
    until: int | None


@dataclass(frozen=True, slots=True)
class Position:
    """How far a reader has come. The incarnation tells one store from another that took its place."""

    incarnation: str
    id: int
