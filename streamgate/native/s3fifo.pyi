"""Interface of native/s3fifo.pyx: which objects stay in a cache of so many bytes (S3-FIFO; Yang et al., SOSP 2023)."""

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar

from typing_extensions import disjoint_base

_V = TypeVar("_V")
_Key = bytes

@disjoint_base
class Cache(Generic[_V]):
    """The index of a cache of ``capacity`` bytes (0 to 2**62): values by key, each with its size in bytes.

    A tenth of the capacity is a small queue for what is new; what was asked for less than twice again leaves it, and its
    hash is remembered. The rest is the main queue, whose objects have a 2-bit counter. Hits move and allocate nothing.
    ``evicted(key, value)`` is called for what leaves to make room, not for what is removed or replaced.
    Values must not refer to the cache: the garbage collector does not see them. Not for several threads without the GIL.
    """

    def __new__(cls, capacity: int, evicted: Callable[[_Key, _V], Any] | None = None) -> Self:
        """Raises ValueError for a capacity out of bounds."""
    @property
    def capacity(self) -> int:
        """Bytes it may hold."""
    @property
    def bytes(self) -> int:
        """Bytes it holds."""
    @property
    def hits(self) -> int:
        """Objects found, by Python or in C."""
    @property
    def misses(self) -> int:
        """Objects that :meth:`get` did not find. The hot path's misses are not counted: it hands them on to who asks again."""
    @property
    def evictions(self) -> int:
        """Objects that left to make room."""
    def get(self, key: _Key) -> _V | None:
        """The value of ``key``; counts the hit or the miss."""
    def peek(self, key: _Key) -> _V | None:
        """As :meth:`get`, and nothing is counted."""
    def put(self, key: _Key, value: _V, size: int) -> bool:
        """Keep ``value``, of ``size`` bytes (1 to 2**62), or replace what ``key`` had; whether it is in the cache now.

        It is not where it takes more than nine tenths of the capacity, or a tenth when it comes for the first time.
        Raises ValueError for a size out of bounds, TypeError for None; whatever ``evicted`` raises, after an eviction.
        """
    def remove(self, key: _Key) -> bool:
        """Forget ``key``; whether it was there."""
    def clear(self) -> None:
        """Forget everything, ghosts too."""
    def resize(self, capacity: int) -> None:
        """Another capacity, at once."""
    def keys(self, prefix: _Key = b"") -> list[_Key]:
        """All keys, or those that begin with ``prefix``: the small queue's, then the main queue's, each from the oldest."""
    def __len__(self) -> int: ...
    def __contains__(self, key: _Key, /) -> bool: ...
