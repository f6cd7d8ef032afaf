"""What is in memory of one source, and what is on its way: no byte is asked for while it is either.

An extent is one request to the store. It grows as the answer comes, and readers take from it what is there.
"""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import AsyncIterator
from functools import partial

from edge.waiters import Waiters
from streamgate.core.logging import get_logger
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.native.slabs import Slabs
from streamgate.storage.objects.remote import RemoteSource

# So long a read waits for others to end where too much is under way; less than a client waits for its first byte.
_ROOM_S = 5.0
# So long an answer waits for who had it asked for ahead, if it is an error.
_UNHEARD_S = 2.0
# Who reads is woken for this much, or for all that he wants: what fails before the first still has its proper status.
_FIRST = 256 * 1024
_STEP = 512 * 1024
_log = get_logger("edge.origin")


class Extent:
    """Bytes [start, end) of a source, of which ``filled`` are there, in ``data``."""

    __slots__ = ("_enough", "_waiters", "data", "end", "error", "filled", "heard", "start")

    def __init__(self, start: int, end: int, data: memoryview, *, heard: bool = True) -> None:
        self.start = start
        self.end = end
        self.data = data
        # Whether who had it asked for listens by now.
        self.heard = heard
        self.filled = 0
        self._enough = len(data)
        self.error: StreamGateError | None = None
        self._waiters = Waiters()

    @property
    def whole(self) -> bool:
        """Whether all of it is there."""
        return self.filled == self.end - self.start

    async def available(self, at: int, enough: int = 1) -> int:
        """Where what is there ends, as soon as ``enough`` bytes are from ``at`` on, or all there will be; raises what the
        request failed with, if there is none."""
        self.heard = True
        wanted = min(at - self.start + enough, len(self.data))
        while self.filled < wanted:
            if self.error is not None:
                if self.start + self.filled > at:
                    break
                raise StreamGateError(self.error.code, self.error.detail)
            self._enough = min(self._enough, wanted)
            await self._waiters.wait()
        return self.start + self.filled

    def grown(self, filled: int) -> None:
        """So many bytes are there."""
        self.filled = filled
        if filled >= self._enough:
            # Who wants more says so again.
            self._enough = len(self.data)
            self._waiters.wake()

    def fail(self, error: StreamGateError) -> None:
        """No more will come."""
        # A fresh one: the other's traceback keeps whoever raised it, and so the memory.
        self.error = StreamGateError(error.code, error.detail)
        self._waiters.wake()


class Memory:
    """At most ``limit`` bytes of extents of all sources; the least recently read go first, those on their way stay.

    ``slabs`` lends the memory itself.
    """

    def __init__(self, limit: int, slabs: Slabs | None = None) -> None:
        self.slabs = slabs or Slabs(limit // 2)
        self._limit = limit
        self._coming = 0
        self._held: OrderedDict[Extent, Extents] = OrderedDict()
        self._waiters = Waiters()
        self.bytes = 0

    def begin(self, size: int) -> None:
        """Room for a request of ``size`` bytes; raises ``overloaded`` where too many are under way."""
        if self._coming and self._coming + size > self._limit:
            raise StreamGateError("overloaded", "too much is being read from the store")
        self._coming += size
        self.bytes += size
        self._shrink()

    def end(self, extent: Extent, owner: Extents) -> None:
        """A request has ended, and what it brought stays for a while."""
        self._coming -= extent.end - extent.start
        self._held[extent] = owner
        self._shrink()
        self._waiters.wake()

    async def less(self) -> None:
        """Return when the next request has ended."""
        await self._waiters.wait()

    def used(self, extent: Extent) -> None:
        """It was read."""
        if extent in self._held:
            self._held.move_to_end(extent)

    def forget(self, extent: Extent) -> None:
        """It goes."""
        if self._held.pop(extent, None) is not None:
            self.bytes -= extent.end - extent.start

    def _shrink(self) -> None:
        while self.bytes > self._limit and self._held:
            extent, owner = next(iter(self._held.items()))
            owner.drop(extent)


class Extents:
    """What this process holds of ``source``. To be used in one event loop."""

    def __init__(self, source: RemoteSource, memory: Memory, telemetry: Telemetry) -> None:
        self._source = source
        self._memory = memory
        self._telemetry = telemetry
        self._starts: list[int] = []
        self._extents: dict[int, Extent] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def read(self, offset: int, length: int, window: tuple[int, int]) -> AsyncIterator[memoryview]:
        """Bytes [offset, offset + length), piece by piece as they come, never copied.

        What is missing of ``window`` (offset and length, of which the range is a part) is asked for in one go, if any of the range is.
        Raises ``origin_*``, ``source_*`` and ``overloaded``.
        """
        at, end = offset, offset + length
        extent: Extent | None = None
        while at < end:
            # Where one ends too early that is the end: nobody waits for as many attempts once more.
            if extent is None or at >= extent.end:
                extent = self._at(at)
            if extent is None:
                await self._asked(at, end, window)
                continue
            self._memory.used(extent)
            try:
                step = _STEP if at > offset else _FIRST
                upto = min(end, await extent.available(at, min(step, end - at)))
            except StreamGateError:
                self.drop(extent)
                raise
            yield extent.data[at - extent.start : upto - extent.start]
            at = upto

    def begin(self, offset: int, length: int, window: tuple[int, int]) -> None:
        """Ask for what of it is neither there nor on its way, if there is room for that now: somebody will read it."""
        if self._gaps(offset, offset + length):
            with contextlib.suppress(StreamGateError):
                self._ask(offset, offset + length, window, heard=False)

    def drop(self, extent: Extent) -> None:
        """Forget what one request brought; who reads from it reads on."""
        self._memory.forget(extent)
        if self._extents.get(extent.start) is extent:
            del self._extents[extent.start]
            self._starts.remove(extent.start)

    def forget(self) -> None:
        """Ask for everything anew; who reads what is there, or on its way, reads on."""
        for extent in list(self._extents.values()):
            self.drop(extent)

    def close(self) -> None:
        """Forget everything, and end what is under way."""
        for task in self._tasks:
            task.cancel()
        self.forget()

    def _at(self, at: int) -> Extent | None:
        """The extent that has the byte ``at``, or will have it."""
        n = bisect_right(self._starts, at) - 1
        extent = self._extents[self._starts[n]] if n >= 0 else None
        return extent if extent is not None and at < extent.end else None

    async def _asked(self, at: int, end: int, window: tuple[int, int]) -> None:
        """Ask for it, as soon as there is room for that; raises ``overloaded`` where there is none for too long."""
        late = asyncio.get_running_loop().time() + _ROOM_S
        while self._at(at) is None:
            try:
                if not self._ask(at, end, window):
                    raise StreamGateError("internal", "a range lies outside of its window")
            except StreamGateError as error:
                if error.code != "overloaded":
                    raise
                try:
                    async with asyncio.timeout_at(late):
                        await self._memory.less()
                except TimeoutError:
                    raise error from None

    def _ask(self, at: int, end: int, window: tuple[int, int], *, heard: bool = True) -> bool:
        """Ask for what is missing of the window; whether ``at`` is among that."""
        first, last = min(at, window[0]), max(end, window[0] + window[1])
        for start, stop in self._gaps(first, min(last, self._source.size)):
            self._memory.begin(stop - start)
            extent = Extent(start, stop, self._memory.slabs.take(stop - start), heard=heard)
            self._extents[start] = extent
            insort(self._starts, start)
            task = asyncio.ensure_future(self._fill(extent))
            self._tasks.add(task)
            task.add_done_callback(partial(self._over, extent))
        return self._at(at) is not None

    def _over(self, extent: Extent, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() and extent.error is None:  # before it had begun
            extent.fail(StreamGateError("stopping"))
            self._memory.end(extent, self)
            self.drop(extent)

    def _gaps(self, at: int, end: int) -> list[tuple[int, int]]:
        gaps = []
        while at < end:
            extent = self._at(at)
            if extent is not None:
                at = extent.end
                continue
            n = bisect_right(self._starts, at)
            stop = min(end, self._starts[n]) if n < len(self._starts) else end
            gaps.append((at, stop))
            at = stop
        return gaps

    async def _fill(self, extent: Extent) -> None:
        result = "ok"
        source = self._source
        try:
            await source.store.read_into(
                source.info.key, extent.start, extent.data, etag=source.info.etag, progress=extent.grown
            )
            if not extent.whole:
                raise StreamGateError("source_changed", f"{source.name}: it ends too early")
        except StreamGateError as error:
            if error.code == "source_not_found":
                # It was there when it was opened. Whether it is gone for good, the next listing tells.
                error = StreamGateError("source_changed", error.detail)
            result = error.code
            _log.warning("a source cannot be read", source=source.name, code=error.code, detail=error.detail)
            extent.fail(error)
        except asyncio.CancelledError:
            result = "cancelled"
            extent.fail(StreamGateError("stopping"))
            raise
        except Exception:
            result = "internal"
            _log.exception("a source cannot be read", source=source.name)
            extent.fail(StreamGateError("internal"))
        finally:
            self._telemetry.count("origin_reads", result=result)
            self._memory.end(extent, self)
            if extent.error is not None:
                # The next who asks asks the store.
                if extent.heard:
                    self.drop(extent)
                else:
                    asyncio.get_running_loop().call_later(_UNHEARD_S, self.drop, extent)
