"""What is revoked, of all kinds, each until the last that it concerns has ended by itself."""

from __future__ import annotations

from collections.abc import Callable

from streamgate.access.sessions import Session
from streamgate.storage.kv.events import Event, EventType

_FOREVER = 2**63 - 1


class Revoked:
    """The revocations in force; ``clock`` gives s since 1970."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[tuple[EventType, bytes], int] = {}

    def __len__(self) -> int:
        return len(self._until)

    def apply(self, event: Event) -> None:
        """Take an event of the feed into force; purges change nothing here."""
        if event.type != "purge":
            self.add(event.type, event.subject, event.until)

    def add(self, kind: EventType, subject: bytes, until: int | None) -> None:
        """Take one into force; None: for ever."""
        what = kind, subject
        self._until[what] = max(_FOREVER if until is None else until, self._until.get(what, 0))

    def holds(self, kind: EventType, subject: bytes | str) -> bool:
        """Whether something is revoked now."""
        name = subject.encode() if isinstance(subject, str) else subject
        return self._until.get((kind, name), 0) > self._clock()

    def ends(self, session: Session) -> bool:
        """Whether a session may not go on, for itself or for what it rests on."""
        if not self._until:
            return False
        return (
            self.holds("revoke.session", session.id)
            or self.holds("revoke.grant", session.grant)
            or self.bars(session.account, session.asset, session.entitlements)
        )

    def bars(self, account: str, asset: str, entitlements: tuple[str, ...]) -> bool:
        """Whether nothing may be played by this account, of this asset, or by one of these entitlements."""
        return (
            self.holds("revoke.asset", asset)
            or (bool(account) and self.holds("revoke.account", account))
            or any(self.holds("revoke.entitlement", each) for each in entitlements)
        )

    def forget(self) -> None:
        """Drop what has ended."""
        now = self._clock()
        for what in [what for what, until in self._until.items() if until <= now]:
            del self._until[what]
