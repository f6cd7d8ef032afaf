"""What can be delivered: a representation with its metadata, its body in memory, in a file, or to be cut from a source."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol

from streamgate.errors import StreamGateError

# Cache-Control without its scope, which is a matter of who may see the answer.
IMMUTABLE = "max-age=31536000, immutable"


class Body(Protocol):
    """A body that is made, or read, when it is sent. ``whole``: it cannot be made in blocks."""

    @property
    def size(self) -> int:
        """Bytes of the whole body."""

    @property
    def kind(self) -> str:
        """The class of segment, or where it comes from, for metrics."""

    @property
    def whole(self) -> bool:
        """Whether a read of any part makes the whole."""

    def read(self, start: int, length: int) -> bytes:
        """Bytes [start, start + length); blocking. Raises StreamGateError ``source_*``, ``cache_failed``."""


class Fetched(ABC):
    """A body that comes from afar: it is awaited, not read in a thread. ``kind`` and ``whole`` as for :class:`Body`.

    ``read_as`` names what is read for it, if other objects are made of that, too: those of :meth:`beside`.
    """

    kind: str
    whole: bool = False
    read_as: str = ""

    def beside(self) -> list[tuple[str, Entry]]:
        """The keys of these others, and their entries."""
        return []

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes of the whole body."""

    @abstractmethod
    async def fetch(self, start: int, length: int) -> bytes:
        """Bytes [start, start + length). Raises StreamGateError ``source_*``, ``origin_*``."""

    def begin(self) -> None:  # noqa: B027  (most need not)
        """All of it will be fetched in a moment: let it be on its way, if that needs no wait."""

    async def fill(self, out: memoryview, start: int, told: Callable[[int], None]) -> None:
        """Fill ``out`` with what comes from byte ``start`` on; ``told`` hears up to which byte it is there. Raises as :meth:`fetch`."""
        block = await self.fetch(start, len(out))
        if len(block) != len(out):
            raise StreamGateError("internal", f"a body gave {len(block)} bytes instead of {len(out)}")
        out[:] = block
        told(start + len(out))


@dataclass(frozen=True, slots=True)
class Entry:
    """A representation in one content coding. ``tag`` is the ETag's inside: made from names and numbers, or a digest.

    ``made``: when, in seconds since 1970, for Age. ``generation``: the opening of the asset that it tells of; 0: any.
    ``stale``: it was purged softly, and is served while it is fetched again. ``born``: when this process began to make
    it, or found it, by its performance counter.
    """

    media_type: str
    tag: str
    cache_control: str
    body: bytes | Body | Fetched
    compressible: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    made: int = field(default_factory=lambda: int(time.time()))
    generation: int = 0
    coding: str = "identity"
    stale: bool = False
    born: float = field(default_factory=time.perf_counter, compare=False)

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self.body) if isinstance(self.body, bytes) else self.body.size

    @property
    def etag(self) -> str:
        """The strong ETag of this representation in its coding (RFC 9110 section 8.8.3.3)."""
        return f'"{self.tag}"' if self.coding == "identity" else f'"{self.tag};{self.coding}"'

    def failed(self) -> None:
        """The body could not be sent to its end, for its file did not give it: it is thrown out; blocking."""
        tell = getattr(self.body, "failed", None)
        if tell is not None:
            tell()


def text(
    content: str | bytes, media_type: str, cache_control: str, *, tag: str = "", headers: dict[str, str] | None = None
) -> Entry:
    """An entry of text in memory; its tag is ``tag`` and a digest of it."""
    body = content.encode() if isinstance(content, str) else content
    digest = blake2b(body, digest_size=12).hexdigest()
    return Entry(media_type, f"{tag}-{digest}" if tag else digest, cache_control, body, True, headers or {})
