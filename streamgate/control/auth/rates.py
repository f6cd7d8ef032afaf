"""How often somebody may ask for something: tables of fixed size, by :mod:`streamgate.native.limiter`."""

from __future__ import annotations

import secrets
import time

from streamgate.core.settings import AuthSettings
from streamgate.errors import StreamGateError
from streamgate.native.limiter import Limiter, room

_SEED_BYTES = 16
_MINUTE_S = 60.0


class Rate:
    """At most ``a_minute`` of each key, all of them at once if they like; ``tracked`` keys are counted at once."""

    def __init__(self, a_minute: float, tracked: int) -> None:
        memory = bytearray(room(tracked))
        memory[:_SEED_BYTES] = secrets.token_bytes(_SEED_BYTES)
        self._limiter = Limiter(memory, a_minute / _MINUTE_S, max(1, int(a_minute)))

    def ask(self, key: bytes | str) -> None:
        """Count one; raises ``rate_limited``."""
        name = key.encode() if isinstance(key, str) else key
        if self._limiter.ask(name, time.monotonic_ns()):
            raise StreamGateError("rate_limited")


class Rates:
    """The table of what is limited."""

    def __init__(self, settings: AuthSettings) -> None:
        self.starts = Rate(settings.starts_per_account, settings.tracked)
        self.renewals = Rate(settings.renewals_per_session, settings.tracked)
        self.logins = Rate(settings.logins_per_address, settings.tracked)
