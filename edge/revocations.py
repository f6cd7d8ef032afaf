"""What is revoked: sessions and keys, each until the last token that it concerns has ended by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from streamgate.storage.kv.events import Event, EventType

FOREVER = 2**63 - 1
"""``until`` of what has no end."""

KINDS: dict[str, EventType] = {"session": "revoke.session", "kid": "revoke.key"}
"""What can be revoked here, by the names that operators use."""


class Verifier(Protocol):
    """Who is to refuse the revoked."""

    def revoke_session(self, session: bytes, until: int, /) -> None: ...
    def revoke_kid(self, kid: bytes, until: int, /) -> None: ...
    def forget(self, now: int, /) -> int: ...


class Revocations:
    """The revocations in force in this process. They are forwarded to the verifier that is attached, if any."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._until: dict[tuple[EventType, bytes], int] = {}
        self._verifier: Verifier | None = None

    def __len__(self) -> int:
        return len(self._until)

    def attach(self, verifier: Verifier) -> None:
        """Let ``verifier`` refuse what is revoked, now and later."""
        self._verifier = verifier
        for (kind, subject), until in self._until.items():
            self._forward(kind, subject, until)

    def apply(self, event: Event) -> None:
        """Take an event of the feed into force; those of other kinds change nothing here."""
        if event.type not in KINDS.values():
            return
        what, until = (event.type, event.subject), FOREVER if event.until is None else event.until
        self._until[what] = max(until, self._until.get(what, 0))
        self._forward(*what, self._until[what])

    def revoked(self, kind: EventType, subject: bytes) -> bool:
        """Whether something is revoked now."""
        return self._until.get((kind, subject), 0) > self._clock()

    def events(self) -> list[Event]:
        """What is in force, as events without numbers."""
        ends = [(what, None if until == FOREVER else until) for what, until in self._until.items()]
        return [Event(0, kind, subject, until) for (kind, subject), until in ends]

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
        revoke = self._verifier.revoke_session if kind == "revoke.session" else self._verifier.revoke_kid
        revoke(subject, until)
