"""From an entry to what the hot path sends: the head, written once."""

from __future__ import annotations

from edge import heads
from edge.cors import Cors
from edge.entries import Entry
from edge.tiers.objects import FileBody
from edge.tiers.tier import Terms
from streamgate.native.stored import Stored


def stored(entry: Entry, terms: Terms, cors: Cors, compress_min: int, tier: str = "") -> Stored | None:
    """The object that sends ``entry`` on these terms, and owns it; None where its body is neither in memory nor a file.
    ``tier`` had the body; without it, that of its medium.

    Texts of ``compress_min`` bytes and more are also sent compressed. Where ``cors`` depends on who asks, the head is the
    one for requests that name no origin.
    """
    body = entry.body
    if isinstance(body, FileBody):
        where: bytes | tuple[int, int, int] = (body.fd, body.offset, body.size)
    elif isinstance(body, bytes):
        where = body
    else:
        return None
    head, content = heads.representation(entry, terms.scope)
    heads.common(cors, None, head)
    head["Cache-Status"] = heads.cache_status(tier or tier_of(entry), asked=True)
    return Stored(
        entry.etag.encode(),
        lines(head),
        lines(content),
        where,
        route=terms.route,
        gated=terms.scope != "public",
        negotiable=entry.compressible and entry.coding == "identity" and entry.size >= compress_min,
        made=entry.made,
        until=terms.until,
        owner=entry,
    )


def tier_of(entry: Entry) -> str:
    """The tier whose medium has the body."""
    return "disk" if isinstance(entry.body, FileBody) else "memory"


def lines(fields: dict[str, str]) -> bytes:
    """The fields as a head has them."""
    return "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode("latin-1")
