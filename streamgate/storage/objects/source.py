"""What an asset is opened from: bytes that can be read in ranges, wherever they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Source(Protocol):
    """One media or subtitle file of an asset. All calls block, and raise StreamGateError ``source_*`` or ``origin_*``."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def size(self) -> int:
        """Bytes of the whole."""

    @property
    def key(self) -> str:
        """What its index is kept under: it differs where anything of the bytes may differ."""

    def read(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``; fewer only at the end."""

    def look(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each range (offset, length): looks into samples, few and short."""

    def identity(self, index: bytes = b"") -> bytes:
        """A digest (16 bytes) that covers what the source holds; ``index`` is its sample index."""
