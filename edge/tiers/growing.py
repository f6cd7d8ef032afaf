"""A body that is being made: readers wait for as much of it as they want to send next."""

from __future__ import annotations

from edge.entries import Body, Fetched
from edge.tiers import objects
from edge.tiers.claims import Claim
from edge.waiters import Waiters
from streamgate.errors import StreamGateError


class Growing:
    """``written`` of ``size`` bytes can be read, ``stored`` of these from the file of ``claim``, which is open as long as
    somebody holds this; the others are in memory.

    To be used in one event loop; :meth:`read` blocks, and belongs into a thread.
    """

    kind = "fill"
    whole = False

    def __init__(self, claim: Claim, size: int) -> None:
        self.claim = claim
        self.size = size
        self.written = 0
        self.stored = 0
        # Why no more can be read, and why no more will be in the file.
        self.error: StreamGateError | None = None
        # What who follows another process reads where that one says no more.
        self.otherwise: Body | Fetched | None = None
        self.lost: StreamGateError | None = None
        # Another process reads the file as it grows.
        self.followed = False
        # What is in memory, and where in the body it begins.
        self._block: tuple[int, bytes | memoryview] = (0, b"")
        self._owner: object = None
        # How much of it somebody waits for who writes it.
        self._worth = size
        self._readers = Waiters()
        self._keepers = Waiters()

    @property
    def leads(self) -> bool:
        """Whether this process makes it."""
        return self.claim.leads

    @property
    def ended(self) -> bool:
        """Whether it is whole, or never will be."""
        return self.error is not None or self.written == self.size

    @property
    def settled(self) -> bool:
        """Whether it is whole and in the file, or never will be."""
        return self.error is not None or self.lost is not None or self.stored == self.size

    def read(self, start: int, length: int) -> bytes:
        """Bytes [start, start + length), which must be there. Raises ``cache_failed``."""
        block = self.at_hand(start, length)
        return (
            bytes(block) if block is not None else objects.read_exactly(self.claim.fd, objects.HEADER + start, length)
        )

    def at_hand(self, start: int, length: int) -> bytes | memoryview | None:
        """Bytes [start, start + length), if they are in memory; to be sent without asking a thread."""
        first, block = self._block
        if first <= start and start + length <= first + len(block):
            return block[start - first : start - first + length]
        return None

    def hold(self, start: int, block: bytes | memoryview, owner: object = None) -> None:
        """What is made next is in ``block``, from byte ``start`` of the body on; ``owner`` is kept as long as that is."""
        self._block, self._owner = (start, block), owner

    def let_go(self) -> None:
        """Nothing is in memory any more, if all of it is in the file."""
        if self.stored == self.size:
            self.hold(0, b"")

    async def available(self, start: int) -> int:
        """How many bytes there are from ``start`` on, when there is one; raises what the flight failed with."""
        await self.beyond(start)
        if self.written <= start < self.size and self.error is not None:
            raise StreamGateError(self.error.code, self.error.detail)
        return self.written - start

    async def beyond(self, written: int) -> None:
        """Wait until more than ``written`` bytes can be read, or it has ended."""
        while self.written <= written and not self.ended:
            await self._readers.wait()

    async def beyond_stored(self, stored: int) -> None:
        """Wait until more than ``stored`` bytes are in the file, or that has ended."""
        while self.stored <= stored and not self.settled:
            await self._keepers.wait()

    async def worth_keeping(self, upto: int) -> None:
        """Wait until there is something to be written: all up to there, or more than is in the file where that is followed."""
        self._worth = upto
        while self.written < upto and not self.ended and not (self.followed and self.written > self.stored):
            await self._keepers.wait()

    def follow(self) -> None:
        """Another process reads the file from now on."""
        self.followed = True
        self._keepers.wake()

    def advance(self, written: int) -> None:
        """``written`` bytes can be read."""
        self.written = max(self.written, written)
        self._readers.wake()
        if self.followed or self.written >= self._worth:
            self._keepers.wake()

    def keep(self, stored: int) -> None:
        """``stored`` bytes are in the file."""
        self.stored = max(self.stored, stored)
        self.advance(self.stored)
        self._keepers.wake()

    def lose(self, error: StreamGateError) -> None:
        """No more will be in the file; who reads from memory reads on."""
        if not self.settled:
            self.lost = StreamGateError(error.code, error.detail)
            self._keepers.wake()

    def fail(self, error: StreamGateError) -> None:
        """No more will come; nothing happens where it is whole already."""
        if not self.ended:
            # A fresh one: the other's traceback keeps whoever raised it, and so what this has in memory.
            self.error = StreamGateError(error.code, error.detail)
            self._readers.wake()
            self._keepers.wake()
