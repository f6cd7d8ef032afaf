"""The access log: lines of JSON or of the combined format, made in C, handed on in blocks."""

from collections.abc import Callable
from typing import Literal, Self, final

@final
class AccessLog:
    """Formats one line a request into a buffer of ``size`` bytes and hands it to ``sink`` whole lines at a time.

    ``sink`` gets bytes, is called in the event loop and must not block: writing is somebody else's job, in a thread.
    It is called when the buffer is full and at :meth:`flush`, which whoever owns the log calls every second or so.
    ``sample``: the part of requests that is logged, 0 to 1, evenly spread. Addresses are cut to /24 and /48 unless ``whole_addresses``.

    No line holds a query, a Referer or a token: a path below ``/t/`` is shown with the first eight hex digits of the session's handle.
    Raises ValueError for a sample outside of 0 to 1 and for a size below 16384.
    """

    def __new__(
        cls,
        sink: Callable[[bytes], object],
        *,
        format: Literal["json", "combined"] = "json",
        sample: float = 1.0,
        whole_addresses: bool = False,
        size: int = 65536,
    ) -> Self: ...
    def add(
        self,
        *,
        method: bytes,
        path: bytes,
        route: bytes,
        status: int,
        sent: int,
        duration: int,
        session: bytes | None = None,
        address: bytes = b"",
        traceparent: bytes = b"",
        user_agent: bytes = b"",
        now: int = 0,
    ) -> bool:
        """Log a request that was not answered natively; whether it was among those to be logged.

        ``path``: canonical, behind the token, without a query. ``session``: None unless the token was in the path;
        then the handle of its session, b"" where the token did not count.
        ``sent`` in bytes of the body, ``duration`` in ns, ``now`` in ns since 1970 (0: read the clock); ``address``: 4 or 16 bytes.
        """
    def flush(self) -> None:
        """Hand on what is in the buffer."""
