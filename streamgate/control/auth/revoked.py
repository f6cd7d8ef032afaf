"""What is revoked, of all kinds, each until the last that it concerns has ended by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from streamgate.access.policies import MAX_SESSION_S
from streamgate.access.sessions import GRACE_S, Session
from streamgate.storage.kv.events import Event, EventType

FOREVER = 2**63 - 1
LASTING: tuple[EventType, ...] = ("revoke.asset", "revoke.account", "revoke.entitlement")
"""What ends all sessions that had begun before, also when it has passed: a session has no row of its own that would say so."""
LASTS_S = MAX_SESSION_S + GRACE_S


class Revoked:
    """The revocations in force, and of :data:`LASTING` those that have passed, as long as a session of before may live.

    ``clock`` gives s since 1970.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[tuple[EventType, bytes], int] = {}

    def __len__(self) -> int:
        return len(self._until)

    def apply(self, event: Event) -> bool:
        """Take an event of the feed into force, purges change nothing here; whether that is new."""
        return event.type != "purge" and self.add(event.type, event.subject, event.until)

    def add(self, kind: EventType, subject: bytes, until: int | None) -> bool:
        """Take one into force; None: for ever. Whether it was not as much in force already."""
        what, end = (kind, subject), FOREVER if until is None else until
        before = self._until.get(what, 0)
        self._until[what] = max(end, before)
        return end > before

    def holds(self, kind: EventType, subject: bytes | str) -> bool:
        """Whether something is revoked now."""
        return self._end(kind, subject) > self._clock()

    def ends(self, session: Session) -> bool:
        """Whether a session may not go on, for itself or for what it rests on."""
        if not self._until:
            return False
        return (
            self.holds("revoke.session", session.id)
            or self.holds("revoke.grant", session.grant)
            # Nothing begins while such a revocation is in force: whatever began before its end had begun before it.
            or self._bars(session.account, session.asset, session.entitlements, session.start)
        )

    def bars(self, account: str, asset: str, entitlements: tuple[str, ...]) -> bool:
        """Whether nothing may be played by this account, of this asset, or by one of these entitlements."""
        return self._bars(account, asset, entitlements, self._clock())

    def lasting(self) -> Iterator[tuple[EventType, bytes, int]]:
        """Those of :data:`LASTING` that have an end, which they have when they no longer matter in themselves."""
        for (kind, subject), until in self._until.items():
            if kind in LASTING and until != FOREVER:
                yield kind, subject, until

    def forget(self) -> None:
        """Drop what matters no more."""
        now = self._clock()
        for what in [what for what, end in self._until.items() if end + (LASTS_S if what[0] in LASTING else 0) <= now]:
            del self._until[what]

    def _bars(self, account: str, asset: str, entitlements: tuple[str, ...], since: float) -> bool:
        return (
            self._end("revoke.asset", asset) > since
            or (bool(account) and self._end("revoke.account", account) > since)
            or any(self._end("revoke.entitlement", each) > since for each in entitlements)
        )

    def _end(self, kind: EventType, subject: bytes | str) -> int:
        name = subject.encode() if isinstance(subject, str) else subject
        return self._until.get((kind, name), 0)
