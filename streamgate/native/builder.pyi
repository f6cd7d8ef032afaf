"""Interface of native/builder.pyx, which other kernels use; from Python see samples.Track.from_samples."""

from typing import Self

from numpy.typing import ArrayLike
from typing_extensions import disjoint_base

@disjoint_base
class Builder:
    def __new__(cls, limit: int) -> Self: ...

def block_from_columns(
    sizes: ArrayLike,
    deltas: ArrayLike,
    offsets: ArrayLike | None,
    syncs: ArrayLike | None,
    positions: ArrayLike,
    first_dts: int,
) -> bytes: ...
