"""The fields of an answer's head, said once for both ways in which answers are sent."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence

from edge.cors import Cors, vary
from edge.entries import Entry

# RFC 9211 section 2: who answers.
CACHE = "streamgate"


def representation(entry: Entry, scope: str) -> tuple[dict[str, str], dict[str, str]]:
    """The fields of ``entry`` for whoever may see it ("public", "private"): those of 200, 206 and 304, and those of the
    first two only."""
    keep = entry.cache_control
    if scope != "public":
        # Whether somebody may see it still is asked each time; an answer of before is none (RFC 5861).
        keep = keep.partition(", stale-")[0]
    head = {"ETag": entry.etag, "Cache-Control": f"{scope}, {keep}" if "max-age" in keep else keep, **entry.headers}
    if entry.compressible:
        vary(head, "Accept-Encoding")
    content = {"Content-Type": entry.media_type}
    if entry.coding == "identity":
        content["Accept-Ranges"] = "bytes"
    else:
        content["Content-Encoding"] = entry.coding
    return head, content


def common(cors: Cors | None, origin: str | None, headers: MutableMapping[str, str], only: Sequence[str] = ()) -> None:
    """Add what every answer says, errors included; without ``cors`` the answer decides for itself who may read it.

    ``only`` are the origins of pages that may, where the asset lists some.
    """
    headers["Server"] = "StreamGate"
    headers["X-Content-Type-Options"] = "nosniff"
    headers.setdefault("Referrer-Policy", "no-referrer")
    if cors is not None:
        cors.allow(origin, headers, only)
        headers.setdefault("Cross-Origin-Resource-Policy", "cross-origin")


def cache_status(tier: str, *, asked: bool, stored: bool = False, collapsed: bool = False) -> str:
    """Cache-Status (RFC 9211): the ``tier`` that had it, or none; whether any was ``asked``; what became of a miss."""
    if tier:
        return f"{CACHE};hit;detail={tier}"
    if not asked:
        return f"{CACHE};fwd=bypass"
    return f"{CACHE};fwd=uri-miss{';stored' if stored else ''}{';collapsed' if collapsed else ''}"
