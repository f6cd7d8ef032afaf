"""Who the clients are: how many connections each has, and whom a request is from that a trusted proxy brings."""

from collections.abc import Callable
from typing import Self, final

@final
class Client:
    """A packed address of 4 or 16 bytes, b"" where it is not known, and whether it is a proxy of ours itself.

    Raises ValueError where it has another size.
    """

    def __new__(cls, packed: bytes, trusted: bool) -> Self: ...

@final
class Clients:
    """Remembers what ``ask(peer, x_forwarded_for)`` says: packed address, and whether that is trusted; used from C."""

    def __new__(cls, ask: Callable[[bytes, str], tuple[bytes, bool]] | None) -> Self: ...

@final
class Places:
    """How many connections there are from each packed address, at most ``most``; used from C."""

    def __new__(cls, most: int) -> Self: ...
