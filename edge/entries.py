"""What can be delivered: a representation with its metadata, its body in memory or to be cut from a source."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol

# Cache-Control without its scope, which is a matter of who may see the answer.
IMMUTABLE = "max-age=31536000, immutable"


class Cut(Protocol):
    """A body that is made when it is sent. ``whole``: it cannot be made in blocks."""

    @property
    def size(self) -> int:
        """Bytes of the whole body."""

    @property
    def kind(self) -> str:
        """The class of segment, for metrics."""

    @property
    def whole(self) -> bool:
        """Whether a read of any part makes the whole."""

    def read(self, start: int, length: int) -> bytes:
        """Bytes [start, start + length); blocking. Raises StreamGateError ``source_*``."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A representation in the identity coding. ``tag`` is the ETag's inside: made from names and numbers, or a digest."""

    media_type: str
    tag: str
    cache_control: str
    body: bytes | Cut
    compressible: bool = False
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self.body) if isinstance(self.body, bytes) else self.body.size

    def etag(self, coding: str) -> str:
        """The strong ETag of this representation in ``coding`` (RFC 9110 section 8.8.3.3)."""
        return f'"{self.tag}"' if coding == "identity" else f'"{self.tag};{coding}"'


def text(
    content: str | bytes, media_type: str, cache_control: str, *, tag: str = "", headers: dict[str, str] | None = None
) -> Entry:
    """An entry of text in memory; its tag is ``tag`` and a digest of it."""
    body = content.encode() if isinstance(content, str) else content
    digest = blake2b(body, digest_size=12).hexdigest()
    return Entry(media_type, f"{tag}-{digest}" if tag else digest, cache_control, body, True, headers or {})
