"""Cross-origin requests (the Fetch standard's CORS protocol): players live on other origins than the media."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence

from streamgate.access.embedding import allows
from streamgate.core.settings import EdgeSettings

METHODS = "GET, HEAD, OPTIONS"
# Listed one by one: with credentials a "*" would mean a header of that name.
REQUEST_HEADERS = (
    "Accept, Authorization, Cache-Control, CMCD-Object, CMCD-Request, CMCD-Session, CMCD-Status, Content-Type, "
    "CTA-Common-Access-Token, If-Match, If-Modified-Since, If-None-Match, If-Range, If-Unmodified-Since, Range"
)
EXPOSED = (
    "Age, Cache-Status, CMSD-Dynamic, CMSD-Static, Content-Length, Content-Range, CTA-Common-Access-Token, Date, ETag, "
    "Retry-After, Server-Timing, WWW-Authenticate"
)


class Cors:
    """Which origins may read answers, by the setting ``edge.cors_origins``."""

    def __init__(self, settings: EdgeSettings) -> None:
        self._any = "*" in settings.cors_origins
        self._listed = frozenset(settings.cors_origins) - {"*"}
        self._max_age = str(settings.cors_max_age)

    def allow(self, origin: str | None, headers: MutableMapping[str, str], only: Sequence[str] = ()) -> None:
        """Add what lets a page of ``origin`` read the answer that ``headers`` belong to.

        ``only`` are the ``embed_origins`` of the asset that it tells of, if it has some: no others may read it then, nor
        play it without reading it.
        """
        if only:
            headers["Cross-Origin-Resource-Policy"] = "same-origin"
            if origin is None or not allows(only, origin):
                vary(headers, "Origin")
                return
        if self._listed or only:
            vary(headers, "Origin")
        if origin is not None and (origin in self._listed or only and self._any):
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Allow-Credentials"] = "true"
            headers["Timing-Allow-Origin"] = origin
        elif self._any:
            headers["Access-Control-Allow-Origin"] = "*"
            headers["Timing-Allow-Origin"] = "*"
        else:
            return
        headers["Access-Control-Expose-Headers"] = EXPOSED

    def preflight(self, headers: MutableMapping[str, str]) -> None:
        """Add what a preflight asks for; never dependent on a token, which a preflight does not carry."""
        headers["Access-Control-Allow-Methods"] = METHODS
        headers["Access-Control-Allow-Headers"] = REQUEST_HEADERS
        headers["Access-Control-Max-Age"] = self._max_age


def vary(headers: MutableMapping[str, str], name: str) -> None:
    """Add ``name`` to Vary."""
    known = [part.strip() for part in headers.get("Vary", "").split(",") if part.strip()]
    if name not in known:
        headers["Vary"] = ", ".join((*known, name))
