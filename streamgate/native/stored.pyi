"""A representation ready to be sent: made once, sent often, shared by all connections."""

from typing import Self, final

from streamgate.native.mapped import Cut

@final
class Stored:
    """A representation ready to be sent: made once, sent often, shared by all connections.

    ``head``: header lines that 200, 206 and 304 have in common, each ended by CRLF (ETag, Cache-Control, Vary, Server,
    Cache-Status, CORS); ``content``: those of 200 and 206 only (Content-Type, Accept-Ranges, Content-Encoding). The protocol adds
    the status line, Content-Length, Content-Range, Date, Age, Server-Timing and Connection.
    ``body``: bytes, or (fd, offset, size) of an open file, which ``owner`` keeps open, or a cut of one, likewise.
    ``tag``: the ETag's value, with its quotes. ``route``: one of ROUTES.
    ``negotiable``: the identity form of what is also sent compressed; its codings are cached under the same key and ``;br`` etc.
    ``made``: s since 1970, for Age. ``until``: s since 1970 from which it is handed to the fallback instead; None: never.
    Raises ValueError where a line lacks its CRLF, the route is unknown, or the file's part is no part.
    """

    def __new__(
        cls,
        tag: bytes,
        head: bytes,
        content: bytes,
        body: bytes | tuple[int, int, int] | Cut,
        *,
        route: str,
        gated: bool = False,
        negotiable: bool = False,
        made: int = 0,
        until: int | None = None,
        owner: object = None,
    ) -> Self: ...
    @property
    def tag(self) -> bytes: ...
    @property
    def head(self) -> bytes: ...
    @property
    def content(self) -> bytes: ...
    @property
    def body(self) -> bytes: ...
    @property
    def cut(self) -> Cut | None: ...
    @property
    def fd(self) -> int:
        """Of the file that holds the body; -1 where it is in memory."""
    @property
    def offset(self) -> int: ...
    @property
    def size(self) -> int:
        """Bytes of the body."""
    @property
    def gated(self) -> bool: ...
    @property
    def negotiable(self) -> bool: ...
    @property
    def made(self) -> int: ...
    @property
    def until(self) -> int: ...
    @property
    def owner(self) -> object: ...
    @property
    def route(self) -> str: ...
