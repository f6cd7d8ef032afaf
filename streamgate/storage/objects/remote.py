"""A source that is an object of a store, as a thread reads it while an asset is opened.

A progressive MP4 gives its index in at most two requests: its beginning, and either what its moov lacks there or, where
the moov is last, everything from there to the end.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Coroutine, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from streamgate.errors import StreamGateError
from streamgate.storage.objects.store import ObjectInfo, ObjectStore

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

_TAIL = (
    32 * 1024 * 1024
)  # what is left of an object when a jump goes there is read in one go if it is no more than this
_JUMP = 64 * 1024  # else as much as this
_GAP = 64 * 1024  # looks that lie no further apart share a request
_MOST_REQUESTS = 8192  # of one opening: a recording with a fragment every few seconds has a box to be read in each
_MOST_LOOKS = 256
_LOOK = struct.Struct("<QQ")


class Kept(Protocol):
    """Where looks are kept, as indexes are; both block, and neither raises."""

    def get(self, key: str) -> bytes | None: ...
    def keep(self, key: str, data: bytes) -> bool: ...


class Bridge:
    """From a thread into the event loop ``loop``; what takes longer than ``patience`` seconds is given up.

    ``read`` gives a range of a source, from its store unless told otherwise.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        patience: float,
        read: Callable[..., Coroutine[Any, Any, bytes]] | None = None,
    ) -> None:
        self._loop = loop
        self._patience = patience
        self._read = read or _from_store

    def read(self, source: RemoteSource, offset: int, length: int) -> bytes:
        """Bytes [offset, offset + length) of a source; see :meth:`run`."""
        return self.run(self._read(source, offset, length))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``; blocking. Raises what it raises, and ``origin_unavailable`` where it takes too long."""
        import asyncio  # here, as who opens files needs none

        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(self._patience)
        except TimeoutError:
            future.cancel()
            raise StreamGateError("origin_unavailable", "the store of the source takes too long") from None


class RemoteSource:
    """The object that ``info`` tells of, and no other: who finds another in its place raises ``source_changed``.

    ``size`` is in bytes. What was read last is held until :meth:`opened`; looks are held for good, and ``kept`` if it can be.
    """

    def __init__(self, store: ObjectStore, info: ObjectInfo, bridge: Bridge, kept: Kept | None = None) -> None:
        self.store = store
        self.info = info
        self.size = info.size
        self.requests = 0
        self._bridge = bridge
        self._kept = kept
        self._window: tuple[int, bytes] = (0, b"")
        self._looks: dict[tuple[int, int], bytes] | None = None

    @property
    def name(self) -> str:
        """The object's, without what it is below."""
        return self.info.key.rpartition("/")[2]

    @property
    def key(self) -> str:
        """The object, its ETag and size: an ETag tells versions of one object apart (RFC 9110 section 8.8.3), and no more."""
        return f"{self.info.key} {self._version}"

    def identity(self, index: bytes = b"") -> bytes:
        """A digest of ETag and size; the index follows from these."""
        return blake2b(self._version.encode(), digest_size=16).digest()

    @property
    def _version(self) -> str:
        return f"{self.info.etag} {self.size}"

    def read(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``; fewer only at the end."""
        length = max(0, min(length, self.size - offset))
        start, held = self._window
        end = start + len(held)
        if start <= offset and offset + length <= end:
            return held[offset - start : offset - start + length]
        if start <= offset <= end:
            # What follows the beginning: only that is wanted.
            more = self._fetch(end, offset + length - end)
            self._window = (start, held + more)
        else:
            left = self.size - offset
            self._window = (offset, self._fetch(offset, left if left <= _TAIL else max(length, min(_JUMP, left))))
        start, held = self._window
        return held[offset - start : offset - start + length]

    def look(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each range; neighbours share a request. Raises ``source_too_complex`` beyond a number of requests."""
        if not ranges:
            return []  # and nobody is kept waiting for what will never be kept
        known = self._known_looks()
        before = len(known)
        start, held = self._window
        for offset, length in ranges:
            if start <= offset and offset + length <= start + len(held):
                known[offset, length] = held[offset - start : offset - start + length]
        missing = sorted({each for each in ranges if each not in known})
        if missing:
            for group in _neighbours(missing):
                first, last = group[0][0], max(offset + length for offset, length in group)
                data = self._fetch(first, last - first)
                known |= {(offset, length): data[offset - first : offset - first + length] for offset, length in group}
        if self._kept is not None and len(known) > before:
            # Other nodes wait for it, though nothing had to be read.
            self._kept.keep(self._looks_key, _pack(known))
        return [known[each] for each in ranges]

    def opened(self) -> None:
        """Let go of what was read of the index."""
        self._window = (0, b"")

    async def changed(self) -> bool:
        """Whether another object is in its place now, or none; raises ``origin_*``."""
        try:
            found = await self.store.stat(self.info.key)
        except StreamGateError as error:
            if error.code == "source_not_found":
                return True
            raise
        return (found.etag, found.size) != (self.info.etag, self.size)

    @property
    def _looks_key(self) -> str:
        return f"/looks/1/{blake2b(self.key.encode(), digest_size=16).hexdigest()}"

    def _known_looks(self) -> dict[tuple[int, int], bytes]:
        if self._looks is None:
            stored = self._kept.get(self._looks_key) if self._kept is not None else None
            self._looks = _unpack(stored) if stored else {}
        return self._looks

    def _fetch(self, offset: int, length: int) -> bytes:
        if length <= 0:
            return b""
        self.requests += 1
        if self.requests > _MOST_REQUESTS:
            raise StreamGateError(
                "source_too_complex", f"{self.name}: its index lies in more than {_MOST_REQUESTS} places"
            )
        return self._bridge.read(self, offset, length)


async def _from_store(source: RemoteSource, offset: int, length: int) -> bytes:
    return await source.store.read(source.info.key, offset, length, etag=source.info.etag)


def _neighbours(ranges: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Sorted ranges in groups that are worth one request each."""
    groups: list[list[tuple[int, int]]] = []
    end = 0
    for offset, length in ranges:
        if groups and offset <= end + _GAP:
            groups[-1].append((offset, length))
        else:
            groups.append([(offset, length)])
        end = max(end, offset + length)
    if len(groups) > _MOST_LOOKS:
        raise StreamGateError("source_too_complex", f"samples to be looked at lie in more than {_MOST_LOOKS} places")
    return groups


def _pack(looks: dict[tuple[int, int], bytes]) -> bytes:
    return b"".join(_LOOK.pack(offset, len(data)) + data for (offset, _), data in looks.items())


def _unpack(data: bytes) -> dict[tuple[int, int], bytes]:
    """What :func:`_pack` wrote; whatever store it comes from has checked that it is whole."""
    looks, at = {}, 0
    while at + _LOOK.size <= len(data):
        offset, length = _LOOK.unpack_from(data, at)
        at += _LOOK.size
        looks[offset, length] = data[at : at + length]
        at += length
    return looks
