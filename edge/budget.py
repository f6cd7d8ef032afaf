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

    def reserve(self, size: int, owner: object) -> Held | None:
        """Reserve ``size`` bytes for as long as what is returned lives, which keeps ``owner``; None where not half is left."""
        return Held(self, size, owner) if self.ample(size) else None

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


class Held:
    """Bytes of a budget, given back when nobody needs them any more."""

    __slots__ = ("_budget", "_owner", "_size")

    def __init__(self, budget: Budget, size: int, owner: object) -> None:
        self._budget, self._size, self._owner = budget, size, owner
        budget.held += size

    def __del__(self) -> None:
        self._budget.held -= self._size
