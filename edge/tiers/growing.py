"""A body that is being made: readers wait for as much of it as they want to send next."""

from __future__ import annotations

from edge.tiers import objects
from edge.tiers.claims import Claim
from edge.waiters import Waiters
from streamgate.errors import StreamGateError


class Growing:
    """``written`` of ``size`` bytes are in the file of ``claim``, which is open as long as somebody holds this.

    To be used in one event loop; :meth:`read` blocks, and belongs into a thread.
    """

    kind = "fill"
    whole = False

    def __init__(self, claim: Claim, size: int) -> None:
        self.claim = claim
        self.size = size
        self.written = 0
        self.error: StreamGateError | None = None
        # What was written last, and where it begins: whoever keeps up need not read it.
        self.latest: tuple[int, bytes] = (0, b"")
        self._waiters = Waiters()

    @property
    def leads(self) -> bool:
        """Whether this process makes it."""
        return self.claim.leads

    @property
    def ended(self) -> bool:
        """Whether it is whole, or never will be."""
        return self.error is not None or self.written == self.size

    def read(self, start: int, length: int) -> bytes:
        """Bytes [start, start + length), which must be written. Raises ``cache_failed``."""
        return objects.read_exactly(self.claim.fd, objects.HEADER + start, length)

    def at_hand(self, start: int, length: int) -> bytes | None:
        """Bytes [start, start + length), if they are what was written last; to be sent without asking a thread."""
        first, block = self.latest
        if length == len(block) and start == first:
            return block
        return (
            block[start - first : start - first + length]
            if first <= start and start + length <= first + len(block)
            else None
        )

    async def available(self, start: int) -> int:
        """How many bytes there are from ``start`` on, when there is one; raises what the flight failed with."""
        await self.beyond(start)
        if self.written <= start < self.size and self.error is not None:
            raise StreamGateError(self.error.code, self.error.detail)
        return self.written - start

    async def beyond(self, written: int) -> None:
        """Wait until more than ``written`` bytes are there, or it has ended."""
        while self.written <= written and not self.ended:
            await self._waiters.wait()

    def advance(self, written: int) -> None:
        """``written`` bytes are there."""
        self.written = max(self.written, written)
        self._waiters.wake()

    def fail(self, error: StreamGateError) -> None:
        """No more will come; nothing happens where it is whole already."""
        if not self.ended:
            self.error = error
            self._waiters.wake()
