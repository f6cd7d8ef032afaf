"""The feed: what every process must hear of, in one order, to be read from where one stopped."""

from __future__ import annotations

from dataclasses import dataclass, field
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
UID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Event:
    """One entry: ``until`` (s since 1970) is when it no longer matters; None: never.

    ``id`` is its number in the store that it was read from. ``uid`` is what it is known by in all stores: 16 random
    bytes, drawn where it was first written. A name that depends on nothing cannot be given twice, by whatever file
    that was copied or put back.
    """

    id: int
    type: EventType
    subject: bytes
    until: int | None
    uid: bytes = field(default=b"", compare=False)


@dataclass(frozen=True, slots=True)
class Position:
    """How far a reader has come: ``uid`` is that of the entry with the number ``id``, where the store looks at it.

    The incarnation tells one store from another that took its place. A store that lost what a reader had read (flushed, put back from a backup, failed over to a replica that lacked the
    last entries) has another incarnation than before.
    """

    incarnation: str
    id: int
    uid: bytes = b""
