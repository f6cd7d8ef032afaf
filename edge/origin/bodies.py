"""Bodies that are cut from objects of a store, as what they need arrives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge.entries import Entry, Fetched
from edge.origin.sharing import Origin
from streamgate.errors import StreamGateError
from streamgate.media.presentation import Rendition
from streamgate.native.gather import Plan
from streamgate.native.mpegts import Muxer
from streamgate.storage.assets import Asset
from streamgate.storage.objects.remote import RemoteSource

# Renditions of one file lie interleaved where what holds one segment of each is not much more than these.
_SLACK = 256 * 1024
# So much of a body is there before a viewer hears of it: what fails before still has its proper status.
_FIRST = 256 * 1024
_LARGEST = 64 * 1024 * 1024


@dataclass(frozen=True)
class RemoteCut(Fetched):
    """A body cut from one source by a plan, in blocks of any size. ``window`` (offset, length) is what to read on a miss;
    ``others`` are made of the same.
    """

    plan: Plan
    source: RemoteSource
    origin: Origin
    kind: str
    window: tuple[int, int]
    read_as: str = ""
    others: Callable[[], list[tuple[str, Entry]]] = list

    def beside(self) -> list[tuple[str, Entry]]:
        """What else is cut from the window."""
        return self.others()

    @property
    def size(self) -> int:
        """Bytes of the whole body."""
        return self.plan.size

    async def fetch(self, start: int, length: int) -> bytes:
        """Bytes [start, start + length); raises ``origin_*``, ``source_changed`` and ``overloaded``."""
        offset, needed = self._needed(start, length)
        data = await self.origin.read(self.source, offset, needed, self.window) if needed else b""
        return self.plan.from_buffer(data, offset, start, length)

    def begin(self) -> None:
        """Ask for what all of it needs, where this process reads the source."""
        offset, needed = self.plan.span
        if needed:
            self.origin.begin(self.source, offset, needed, self.window)

    async def fill(self, out: memoryview, start: int, told: Callable[[int], None]) -> None:
        """As it comes; raises as :meth:`fetch`."""
        if not self.plan.ascending:
            await super().fill(out, start, told)
            return
        at, needed = self._needed(start, len(out))
        done, enough = start, start + min(len(out), _FIRST)
        if needed:
            async for piece in self.origin.pieces(self.source, at, needed, self.window):
                done = self.plan.gather(piece, at, out, start, done)
                at += len(piece)
                if done >= enough:
                    told(done)
        else:
            done = self.plan.gather(b"", 0, out, start, done)
            told(done)
        if done != start + len(out):
            raise StreamGateError("internal", f"a cut gave {done - start} bytes instead of {len(out)}")

    def _needed(self, start: int, length: int) -> tuple[int, int]:
        """Offset and length of what a part of the body lies in, in the source."""
        ranges = self.plan.ranges
        if length == self.size or not len(ranges):
            return self.plan.span
        ends = np.cumsum(ranges[:, 1]) + len(self.plan.head)
        first = int(np.searchsorted(ends, start, side="right"))
        last = int(np.searchsorted(ends, start + length, side="left"))
        part = ranges[first : last + 1]
        if start + length <= len(self.plan.head) or not len(part):
            return (0, 0)
        offset = int(part[:, 0].min())
        return offset, int((part[:, 0] + part[:, 1]).max()) - offset


@dataclass(frozen=True)
class RemoteTs(Fetched):
    """A muxed segment, always made whole."""

    asset: Asset
    origin: Origin
    muxer: Muxer
    variant: tuple[Rendition | None, Rendition | None]
    number: int
    muxed: int
    kind: str = "ts"
    whole: bool = True

    @property
    def size(self) -> int:
        """Bytes of the whole body."""
        return self.muxed

    async def fetch(self, start: int, length: int) -> bytes:
        """Bytes [start, start + length) of the segment, which is muxed anew."""
        payloads = [await self._payload(rendition) for rendition in self.variant]
        data = await self.origin.pool.run(self.muxer.segment, self.number, *payloads)
        return data if length == len(data) else data[start : start + length]

    async def _payload(self, rendition: Rendition | None) -> bytes:
        if rendition is None:
            return b""
        plan = rendition.ts_payload(self.number)
        source, window = self.asset.objects[rendition.source], window_of(self.asset, rendition, self.number)
        body = RemoteCut(plan, source, self.origin, self.kind, window)
        return await body.fetch(0, plan.size)


def sharers(asset: Asset, rendition: Rendition, number: int) -> list[Rendition]:
    """The renditions in the file of this one that have a segment of this number, itself among them."""
    made = asset.presentation
    return [r for r in (*made.video, *made.audio) if r.source == rendition.source and number < r.segments]


def window_of(asset: Asset, rendition: Rendition, number: int) -> tuple[int, int]:
    """Offset and length of what a miss of this segment reads: where the file is interleaved, that of all its renditions."""
    own = rendition.segment(number).span
    spans = [r.segment(number).span for r in sharers(asset, rendition, number)]
    first, end = min(offset for offset, _ in spans), max(offset + length for offset, length in spans)
    together = sum(length for _, length in spans)
    return (first, end - first) if end - first <= min(_LARGEST, together + _SLACK) else own
