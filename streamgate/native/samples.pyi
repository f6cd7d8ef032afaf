"""Interface of native/samples.pyx: the compact sample table of a track."""

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import disjoint_base

IDENTITY: tuple[int, ...]

@final
@disjoint_base
class Track:
    """One elementary stream of a source and where its samples lie; immutable.

    Samples are numbered from 0 in decoding order.
    Times are ticks of ``timescale`` on the media's own clock: edits are reported in ``edits``, not applied.
    The tables are read-only views of one block, made without copying.
    """

    @property
    def id(self) -> int: ...
    @property
    def handler(self) -> str: ...
    @property
    def timescale(self) -> int: ...
    @property
    def language(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def enabled(self) -> bool: ...
    @property
    def width(self) -> float: ...
    @property
    def height(self) -> float: ...
    @property
    def matrix(self) -> tuple[int, ...]: ...
    @property
    def entries(self) -> tuple[bytes, ...]: ...
    @property
    def entries_used(self) -> tuple[int, ...]: ...
    @property
    def edits(self) -> tuple[tuple[int, int, int], ...]: ...
    @property
    def samples(self) -> int: ...
    @property
    def first_dts(self) -> int: ...
    @property
    def duration(self) -> int: ...
    @property
    def payload(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def all_sync(self) -> bool: ...
    @property
    def sizes(self) -> NDArray[np.uint16] | NDArray[np.uint32]:
        """Size of each sample in bytes, shape (samples,)."""
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
