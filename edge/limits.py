"""How often an address and a token may ask, a network bring tokens that were never seen, and a session get a new token: one
table each.

All processes of a node count in them.
"""

from __future__ import annotations

import mmap
import os
import secrets
import time

from streamgate.core.settings import LimitSettings
from streamgate.errors import StreamGateError
from streamgate.native.limiter import Limiter, room

_SEED_BYTES = 16
_TABLES = 4
_MINUTE_S = 60.0


def create(settings: LimitSettings, beyond: int = 0) -> int:
    """A descriptor of memory for the tables, and for ``beyond`` bytes of others behind them, for processes to inherit."""
    size = _size(settings)
    descriptor = os.memfd_create("streamgate-limits")
    os.ftruncate(descriptor, _TABLES * size + beyond)
    for table in range(_TABLES):
        os.pwrite(descriptor, secrets.token_bytes(_SEED_BYTES), table * size)
    return descriptor


def end(settings: LimitSettings) -> int:
    """Bytes of the tables, in whole pages."""
    return _TABLES * _size(settings)


class RateLimits:
    """The tables in the memory behind ``descriptor``, which must be of the same settings; of this process alone without it.

    ``checks``: tokens of others that were never seen, a second from one network. ``renewals``: of one session's token, a minute.
    """

    def __init__(
        self, settings: LimitSettings, descriptor: int | None = None, checks: float = 50.0, renewals: float = 6.0
    ) -> None:
        size, used, own = _size(settings), room(settings.tracked), descriptor is None
        descriptor = create(settings) if descriptor is None else descriptor
        memory = memoryview(mmap.mmap(descriptor, _TABLES * size))
        if own:
            os.close(descriptor)
        self.by_address = Limiter(memory[:used], settings.requests_per_address, settings.burst_per_address)
        self.by_token = Limiter(memory[size : size + used], settings.requests_per_token, settings.burst_per_token)
        self.by_network = Limiter(memory[2 * size : 2 * size + used], checks, max(1, int(checks)))
        self.by_session = Limiter(memory[3 * size : 3 * size + used], renewals / _MINUTE_S, max(1, int(renewals)))

    def ask(self, address: bytes) -> None:
        """Count a request from a packed address, or from nowhere in particular; raises ``rate_limited``."""
        if address and self.by_address.ask(address, time.monotonic_ns()):
            raise StreamGateError("rate_limited", "too many requests from this address")

    def ask_with(self, session: bytes) -> None:
        """Count a request with a token of this session; raises ``rate_limited``."""
        if self.by_token.ask(session, time.monotonic_ns()):
            raise StreamGateError("rate_limited", "too many requests with this token")


def _size(settings: LimitSettings) -> int:
    """Bytes of one table, in whole pages."""
    return -(-room(settings.tracked) // mmap.PAGESIZE) * mmap.PAGESIZE
