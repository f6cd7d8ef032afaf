"""Content codings: which one a client gets (RFC 9110 section 12.5.3), and making it."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable

import brotli  # type: ignore[import-untyped]
import zstandard

_QVALUE = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


def _brotli(data: bytes) -> bytes:
    made: bytes = brotli.compress(data, mode=brotli.MODE_TEXT, quality=5)
    return made


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=6).compress(data)


def _gzip(data: bytes) -> bytes:
    # No time stamp: the same bytes on every node.
    return gzip.compress(data, compresslevel=6, mtime=0)


# In the order of our preference among those a client likes equally.
CODINGS: dict[str, Callable[[bytes], bytes]] = {"br": _brotli, "zstd": _zstd, "gzip": _gzip}
IDENTITY = "identity"


def negotiate(header: str | None) -> str:
    """The coding for an Accept-Encoding header: one of :data:`CODINGS`, or "identity".

    Identity also where the client accepts nothing that we have: better an answer than a 406.
    """
    if not header:
        return IDENTITY
    wishes = _wishes(header)
    rest = wishes.get("*", 0.0)
    best, best_q = IDENTITY, wishes.get(IDENTITY, 0.0)
    for coding in CODINGS:
        q = wishes.get(coding, rest)
        if q > 0 and (q > best_q or (q == best_q and best == IDENTITY)):
            best, best_q = coding, q
    return best


def encode(data: bytes, coding: str) -> bytes:
    """``data`` in one of :data:`CODINGS`."""
    return CODINGS[coding](data)


def _wishes(header: str) -> dict[str, float]:
    wishes: dict[str, float] = {}
    for item in header.lower().split(","):
        name, *parameters = (part.strip(" \t") for part in item.split(";"))
        q = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip(" \t") == "q":
                value = value.strip(" \t")
                q = float(value) if _QVALUE.fullmatch(value) else 0.0
        if name:
            wishes["gzip" if name == "x-gzip" else name] = q
    return wishes
