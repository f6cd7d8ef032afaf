"""What a token wants to be answered where one of its claims does not hold (catif, CTA-5007).

A token is known to be its issuer's by then. Even so it chooses among few answers: a status of an error or a redirect, how
long to wait, and where to go, which is a place of this site or of a host that the operator has named. It cannot set a
cookie, a token, or what a cache or a browser is to do. An answer that asks for anything else is not given, and ours is.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

STATUSES = frozenset((302, 303, 307, 401, 403, 404, 410, 429, 451, 503))
_REDIRECTS = frozenset((302, 303, 307))
_MAX_LOCATION = 512
_MAX_WAIT_S = 86_400
# Printable ASCII but for what a browser, or a proxy, might read in another way (RFC 3986 section 2).
_LOCATION = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")


@dataclass(frozen=True, slots=True)
class ConditionalAnswer:
    """A status and the fields that come with it."""

    status: int
    headers: dict[str, str]


def wanted(catif: object, claim: object, hosts: Collection[str]) -> ConditionalAnswer | None:
    """What ``catif`` asks for where ``claim`` (its key) fails; None where it asks for nothing, or for what is not given.

    ``hosts``: names, in lower case and with their ports, that a Location may lead to over https.
    """
    entry = catif.get(claim) if isinstance(catif, dict) and type(claim) is int else None
    if not isinstance(entry, list) or not 1 <= len(entry) <= 3:
        return None
    status, fields = entry[0], entry[1] if len(entry) > 1 else {}
    # The third names the key that a new token were to be signed with: none is made here.
    if type(status) is not int or status not in STATUSES or not isinstance(fields, dict):
        return None
    headers: dict[str, str] = {}
    for name, value in fields.items():
        if not isinstance(name, str) or not isinstance(value, str):
            return None
        match name.lower():
            case "location" if _allowed(value, hosts) and status in _REDIRECTS:
                headers["Location"] = value
            case "retry-after" if _is_wait(value):
                headers["Retry-After"] = value
            case _:
                return None
    if len(headers) != len(fields) or (status in _REDIRECTS) != ("Location" in headers):
        return None
    return ConditionalAnswer(status, headers)


def _is_wait(value: str) -> bool:
    return value.isascii() and value.isdecimal() and len(value) <= 5 and int(value) <= _MAX_WAIT_S


def _allowed(location: str, hosts: Collection[str]) -> bool:
    """A path of this site, or an https URL of a host that is named."""
    if len(location) > _MAX_LOCATION or not _LOCATION.fullmatch(location):
        return False
    if location.startswith("/"):
        return not location.startswith("//")
    try:
        parts = urlsplit(location)
    except ValueError:
        return False
    return location.startswith("https://") and parts.netloc.lower() in hosts and "@" not in parts.netloc
