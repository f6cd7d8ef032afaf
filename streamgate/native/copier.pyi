"""Copying of many outputs out of one source at once."""

from collections.abc import Iterable
from typing import Self, final

from streamgate.native.gather import Plan

MOST_OUTPUTS: int
"""How many outputs a copier writes at a time."""

@final
class Copier:
    """Writes outputs from the source's file ``fd`` (blocking, by one thread at a time), through a window of 2 MiB.

    The file offset of ``fd`` is neither used nor moved. Safe where the source is truncated meanwhile.
    """

    def __new__(cls, fd: int) -> Self: ...
    def copy(self, outputs: Iterable[tuple[Plan, int]]) -> int:
        """Write each plan to its descriptor, at most ``MOST_OUTPUTS``; returns the number of bytes written.

        What several of them need of the source is read once where they lie close together, as the tracks of an
        interleaved file do. Ranges may be in any order. The GIL is released.

        Raises as :meth:`Plan.from_fd`, when part of the outputs may have been written, and ``output_failed``.
        """
