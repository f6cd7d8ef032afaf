"""Interface of native/index.pyx: the index of a source, in memory and stored."""

from typing import final

from streamgate.native.samples import Track

FORMAT_VERSION: int

@final
class Index:
    """The tracks of one source and where their samples lie; compact and immutable."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Raises TypeError: an index comes from read_index, Parser or loads."""
    @property
    def size(self) -> int:
        """Bytes of the source."""
    @property
    def timescale(self) -> int:
        """Ticks a second of the movie, in which edit durations are given."""
    @property
    def duration(self) -> int:
        """Ticks of the movie as its header says; where it says nothing, the longest track's."""
    @property
    def fragmented(self) -> bool: ...
    @property
    def brands(self) -> tuple[str, ...]:
        """Major brand first, then the compatible ones; empty when there is no ftyp box."""
    @property
    def tracks(self) -> tuple[Track, ...]: ...
    def dumps(self) -> bytes:
        """The index as bytes, for :meth:`loads` of the same FORMAT_VERSION on a machine of the same byte order."""
    @staticmethod
    def loads(data: bytes) -> Index:
        """The index that ``dumps`` wrote; its tables stay where they are in ``data``, which must not change.

        Raises StreamGateError ``source_malformed`` when the bytes are anything else.
        """
