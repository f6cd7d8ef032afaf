"""What is revoked: keys, sessions and whatever these hang on, each until the last token that it concerns has ended by itself.

And all that matters of a feed, purges included: what a store is told that began anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from edge.purges import superseded
from streamgate.storage.kv.events import Event, EventType

FOREVER = 2**63 - 1
"""``until`` of what has no end."""

KINDS: dict[str, EventType] = {
    "session": "revoke.session",
    "kid": "revoke.key",
    "token": "revoke.token",
    "grant": "revoke.grant",
    "account": "revoke.account",
    "entitlement": "revoke.entitlement",
    "asset": "revoke.asset",
}
"""What can be revoked here, by the names that operators use."""


class Verifier(Protocol):
    """Who is to refuse the revoked."""

    def revoke_session(self, session: bytes, until: int, /) -> None: ...
    def revoke_kid(self, kid: bytes, until: int, /) -> None: ...
    def revoke_token(self, digest: bytes, until: int, /) -> None: ...
    def forget(self, now: int, /) -> int: ...


class Revocations:
    """The revocations in force in this process. They are forwarded to the verifier that is attached, if any."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._until: dict[tuple[EventType, bytes], int] = {}
        self._verifier: Verifier | None = None
        self.on_token: Callable[[bytes], None] = lambda _: None
        """Is told the digest of each token of others that is revoked."""

    def __len__(self) -> int:
        return len(self._until)

    def attach(self, verifier: Verifier) -> None:
        """Let ``verifier`` refuse what is revoked, now and later."""
        self._verifier = verifier
        for (kind, subject), until in self._until.items():
            self._forward(kind, subject, until)

    def apply(self, event: Event) -> None:
        """Take an event of the feed into force; purges change nothing here."""
        if event.type == "purge":
            return
        what, until = (event.type, event.subject), FOREVER if event.until is None else event.until
        self._until[what] = max(until, self._until.get(what, 0))
        self._forward(*what, self._until[what])

    def revoked(self, kind: EventType, subject: bytes) -> bool:
        """Whether something is revoked now."""
        return self._until.get((kind, subject), 0) > self._clock()

    def until(self, kind: EventType, subject: bytes) -> int:
        """Until when something is revoked, in s since 1970; 0 where it is not."""
        return self._until.get((kind, subject), 0)

    def forget(self) -> None:
        """Drop what has ended."""
        now = int(self._clock())
        for what in [what for what, until in self._until.items() if until <= now]:
            del self._until[what]
        if self._verifier is not None:
            self._verifier.forget(now)

    def _forward(self, kind: EventType, subject: bytes, until: int) -> None:
        if self._verifier is None:
            return
        if kind == "revoke.session":
            self._verifier.revoke_session(subject, until)
        elif kind == "revoke.key":
            self._verifier.revoke_kid(subject, until)
        elif kind == "revoke.token":
            self._verifier.revoke_token(subject, until)
            self.on_token(subject)


class Held:
    """The events that matter still, in the order in which they came."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._events: dict[bytes, Event] = {}

    def __len__(self) -> int:
        return len(self._events)

    @property
    def revocations(self) -> int:
        """How much is revoked."""
        return len({(event.type, event.subject) for event in self._events.values() if event.type != "purge"})

    @property
    def purges(self) -> int:
        """How many purges matter still."""
        return sum(event.type == "purge" for event in self._events.values())

    def apply(self, event: Event) -> list[Event]:
        """Hold one more; those that need not be held any more, for it is a purge of everything.

        One that is held already changes nothing.
        """
        if event.uid in self._events:
            return []
        needless = superseded(event, self._events.values())
        for each in needless:
            del self._events[each.uid]
        self._events[event.uid] = event
        return needless

    def events(self) -> list[Event]:
        """All of them."""
        return list(self._events.values())

    def forget(self) -> None:
        """Drop what has ended."""
        now = self._clock()
        ended = [uid for uid, event in self._events.items() if event.until is not None and event.until <= now]
        for uid in ended:
            del self._events[uid]
