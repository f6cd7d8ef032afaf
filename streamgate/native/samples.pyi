"""Interface of native/samples.pyx: the compact sample table of a track."""

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

IDENTITY: tuple[int, ...]

@final
class Track:
    """One elementary stream of a source and where its samples lie; immutable.

    Samples are numbered from 0 in decoding order.
    Times are ticks of ``timescale`` on the media's own clock: edits are reported in ``edits``, not applied.
    The tables are read-only views of one block, made without copying.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Raises TypeError: tracks come from an index or from from_samples."""
    @property
    def id(self) -> int: ...
    @property
    def handler(self) -> str:
        """What kind of track it is, as in its hdlr box: 'vide', 'soun', 'text', 'sbtl', 'subt', ..."""
    @property
    def timescale(self) -> int:
        """Ticks a second."""
    @property
    def language(self) -> str:
        """ISO 639-2/T code; 'und' when there is none."""
    @property
    def name(self) -> str: ...
    @property
    def enabled(self) -> bool: ...
    @property
    def width(self) -> float:
        """Pixels for display before ``matrix`` is applied, as in tkhd; so is ``height``."""
    @property
    def height(self) -> float: ...
    @property
    def matrix(self) -> tuple[int, ...]:
        """Nine signed 32-bit fixed-point numbers: a b u c d v x y w."""
    @property
    def entries(self) -> tuple[bytes, ...]:
        """Every sample entry box of stsd, whole."""
    @property
    def entries_used(self) -> tuple[int, ...]:
        """Numbers, from 0, of the entries that samples use, ascending."""
    @property
    def edits(self) -> tuple[tuple[int, int, int], ...]:
        """Edit list: duration in ticks of the movie, media time in ticks of the track (-1: empty), rate as 16.16."""
    @property
    def samples(self) -> int: ...
    @property
    def first_dts(self) -> int:
        """Decoding time of sample 0."""
    @property
    def duration(self) -> int:
        """Sum of all deltas, in ticks."""
    @property
    def payload(self) -> int:
        """Sum of all sizes, in bytes."""
    @property
    def end(self) -> int:
        """Where in the source the last byte that any sample uses ends."""
    @property
    def all_sync(self) -> bool: ...
    @property
    def sizes(self) -> NDArray[np.uint16] | NDArray[np.uint32]:
        """Size of each sample in bytes, shape (samples,); of stride 0 when they are all the same."""
    @property
    def keyframes(self) -> NDArray[np.uint32]:
        """Numbers of the sync samples, ascending; every number when ``all_sync``."""
    def dts(self, first: int = 0, last: int | None = None) -> NDArray[np.int64]:
        """Decoding times of samples [first, last), in ticks."""
    def deltas(self, first: int = 0, last: int | None = None) -> NDArray[np.uint32]:
        """Ticks from each sample of [first, last) to the next one; the last sample's is its own duration."""
    def composition_offsets(self, first: int = 0, last: int | None = None) -> NDArray[np.int32]:
        """Presentation time minus decoding time of samples [first, last), in ticks."""
    def ranges(self, first: int, last: int) -> NDArray[np.uint64]:
        """Byte ranges of samples [first, last) in order, shape (k, 2): offset, length; touching ones joined."""
    @staticmethod
    def from_samples(
        *,
        id: int = 1,
        handler: str = "vide",
        timescale: int,
        entries: Sequence[bytes],
        sizes: ArrayLike,
        deltas: ArrayLike,
        offsets: ArrayLike | None = None,
        syncs: ArrayLike | None = None,
        positions: ArrayLike,
        first_dts: int = 0,
        language: str = "und",
        name: str = "",
        width: float = 0.0,
        height: float = 0.0,
        matrix: Sequence[int] = ...,
        edits: Sequence[tuple[int, int, int]] = (),
        enabled: bool = True,
    ) -> Track:
        """A track of given samples; ``offsets``: composition offsets, ``syncs``: numbers of sync samples (None: all).

        Raises StreamGateError ``source_malformed`` when the columns disagree or a value is out of range.
        """
