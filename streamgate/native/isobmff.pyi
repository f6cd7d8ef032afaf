"""Interface of native/isobmff.pyx: from the bytes of an MP4 or QuickTime file to its sample tables."""

from collections.abc import Callable
from typing import final

from streamgate.native.index import Index as Index
from streamgate.native.samples import Track as Track

@final
class Parser:
    """Finds and reads the index of a file of ``size`` bytes without doing any input: it says what it needs next.

    While ``want`` is not None, feed it exactly those bytes; then take the ``index``. It asks for ranges only, and for
    few: one or two for a file with its moov in front, two or three for one with it at the end, about one a fragment.
    ISO/IEC 14496-12:2022; QuickTime File Format.
    Whatever the bytes, it gives an index or StreamGateError: ``source_unsupported`` (not such a file),
    ``source_truncated``, ``source_malformed``, ``source_too_complex`` (beyond a limit).
    """

    def __init__(
        self, size: int, *, max_index_bytes: int = 268435456, max_samples: int = 50_000_000, max_boxes: int = 1_000_000
    ) -> None: ...
    @property
    def want(self) -> tuple[int, int] | None:
        """Offset and length of the bytes needed next; None when complete."""
    def feed(self, data: bytes) -> None:
        """Takes the wanted bytes; fewer mean that the file is truncated."""
    def index(self) -> Index:
        """The index, once nothing is wanted any more."""

def read_index(
    read: Callable[[int, int], bytes],
    size: int,
    *,
    max_index_bytes: int = 268435456,
    max_samples: int = 50_000_000,
    max_boxes: int = 1_000_000,
) -> Index:
    """The index of a file of ``size`` bytes; ``read(offset, length)`` gives its bytes, fewer only at its end."""
