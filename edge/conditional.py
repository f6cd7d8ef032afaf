"""Conditional requests (RFC 9110 section 13), for representations that have a strong ETag and no modification date."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from multidict import CIMultiDictProxy

# entity-tag (RFC 9110 section 8.8.3)
_TAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')

# The fields that are looked at.
FIELDS = ("If-Match", "If-None-Match", "If-Range")

Verdict = Literal["go on", "not modified", "failed"]


def joined(headers: CIMultiDictProxy[str], name: str) -> str | None:
    """A field that may be sent in several lines (RFC 9110 section 5.3)."""
    values = headers.getall(name, ())
    return ", ".join(values) if values else None


def of(headers: CIMultiDictProxy[str]) -> dict[str, str]:
    """The conditions of a request."""
    return {name: value for name in FIELDS if (value := joined(headers, name)) is not None}


def evaluate(headers: Mapping[str, str], method: str, etag: str) -> Verdict:
    """The preconditions in their order (section 13.2.2); ``etag`` is with its quotes.

    Dates are ignored, as section 13.1.3 and 13.1.4 demand where there is no modification date.
    """
    wanted = headers.get("If-Match")
    if wanted is not None and wanted.strip() != "*" and etag not in _strong(wanted):
        return "failed"
    unwanted = headers.get("If-None-Match")
    if unwanted is not None and (unwanted.strip() == "*" or etag in _weak(unwanted)):
        return "not modified" if method in ("GET", "HEAD") else "failed"
    return "go on"


def range_applies(headers: Mapping[str, str], etag: str) -> bool:
    """If-Range (section 13.1.5): strong comparison; a date never matches, for there is none to compare it with."""
    condition = headers.get("If-Range")
    return condition is None or condition.strip() == etag


def _strong(header: str) -> set[str]:
    return {tag for weak, tag in _TAG.findall(header) if not weak}


def _weak(header: str) -> set[str]:
    return {tag for _, tag in _TAG.findall(header)}
