"""What players report with their requests (CMCD), collected as it came, for somebody to parse who has time."""

from collections.abc import Callable
from typing import Self, final

COLUMNS: tuple[str, ...]
"""Of an entry: what stands between its tabs."""

@final
class CmcdLog:
    """Collects one entry a request in a buffer of ``size`` bytes and hands it to ``sink`` whole entries at a time.

    An entry is a line whose columns, COLUMNS, are separated by tabs: ns since 1970, the path behind any token, the first eight hex
    digits of the token's session, status, bytes of the body, microseconds, tier; then the query's parameter as it was sent,
    and the four header fields. Each of the last five is at most 4097 bytes, one more than anybody reads.

    ``sink`` gets bytes, is called in the event loop and must not block. It is called when the buffer is full and at :meth:`flush`.
    ``sample``: the part of the requests with reports that is kept, 0 to 1, evenly spread.
    Raises ValueError for a sample outside of 0 to 1 and for a size below 32768.
    """

    def __new__(cls, sink: Callable[[bytes], object], *, sample: float = 1.0, size: int = 65536) -> Self: ...
    def add(
        self,
        *,
        path: bytes,
        status: int,
        sent: int,
        duration: int,
        session: bytes = b"",
        tier: bytes = b"",
        query: bytes = b"",
        fields: tuple[bytes, bytes, bytes, bytes] = (b"", b"", b"", b""),
        now: int = 0,
    ) -> bool:
        """Add a request that was not answered natively; whether it reported anything and was among those to be kept.

        ``query``: the whole raw query. ``session``: the handle, b"" without a token that counted. ``duration`` in ns, ``now`` in
        ns since 1970 (0: read the clock).
        """
    def flush(self) -> None:
        """Hand on what is in the buffer."""
