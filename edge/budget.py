"""Memory for bodies on their way, bounded in bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from streamgate.errors import StreamGateError


class Budget:
    """Bytes that may be in memory at once for bodies under way."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    def ample(self, size: int) -> bool:
        """Whether ``size`` more bytes leave half of it free."""
        return self.held + size <= self._limit // 2

    @contextlib.contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Reserve ``size`` bytes; raises ``overloaded`` where they are not left, except for the only holder."""
        if self.held and self.held + size > self._limit:
            raise StreamGateError("overloaded", "too many segments are on their way to clients")
        self.held += size
        try:
            yield
        finally:
            self.held -= size
