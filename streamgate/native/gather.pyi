"""Gathering of output bytes: a literal head followed by byte ranges of one source."""

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

@final
class Plan:
    """What a segment consists of: ``head``, then ``ranges`` of one source, in output order. Immutable.

    ``ranges`` given to the constructor are pairs (offset, length) in bytes of the source.
    Empty ones are left out, adjacent ones are merged; they may overlap and need not ascend.
    Raises ``source_malformed`` where an end or the sum of the lengths does not fit 63 bits.
    """

    def __init__(self, head: bytes, ranges: Sequence[tuple[int, int]] | NDArray[np.uint64]) -> None: ...
    @property
    def head(self) -> bytes:
        """The bytes in front of the payload."""
    @property
    def size(self) -> int:
        """Bytes of the whole output: the head and all ranges."""
    @property
    def ranges(self) -> NDArray[np.uint64]:
        """Offset and length in bytes of each range, shape (k, 2); a read-only copy."""
    @property
    def span(self) -> tuple[int, int]:
        """Offset and length in bytes of the smallest source range that holds every range; (0, 0) without any."""
    def from_fd(self, fd: int, start: int = 0, length: int | None = None) -> bytes:
        """Bytes [start, start + length) of the output, cut off at its end; reads the source's file ``fd`` where needed.

        The file offset of ``fd`` is neither used nor moved; only what the answer holds, and small gaps, is read.
        The GIL is released.

        Raises ``source_truncated`` where the file ends too early, ``source_unreadable`` where the system refuses,
        ``range_not_satisfiable`` where ``start`` lies beyond the output or either number is negative.
        """
    def from_page_cache(self, fd: int) -> bytes | None:
        """The whole output, if the kernel has all that it needs of ``fd`` in memory; None where it would wait for the disk.

        Never blocks, so the GIL is kept (``preadv2(2)``, RWF_NOWAIT; file systems that don't know it give None).
        Raises as :meth:`from_fd`.
        """
    def from_buffer(self, data: Buffer, base: int, start: int = 0, length: int | None = None) -> bytes:
        """As :meth:`from_fd`, from ``data`` that holds the source's bytes from ``base`` on.

        Raises ``source_truncated`` where a needed byte is not in ``data``.
        """
    @property
    def ascending(self) -> bool:
        """Whether no range begins before the one in front of it ends: the source can be read along with the output."""
    def gather(self, data: Buffer, base: int, out: Buffer, start: int, done: int) -> int:
        """Copy what ``data``, the source's bytes from ``base`` on, has of the output from byte ``done`` on, as far as that goes
        without a gap; where the output is filled up to then.

        ``out`` holds the output from byte ``start`` on. Raises ``range_not_satisfiable`` where ``done`` is not in it.
        """
    def payload_from_fd(self, fd: int) -> bytes:
        """The output without its head; raises as :meth:`from_fd`."""
