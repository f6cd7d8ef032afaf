"""How a claim matches a text: parts of a request's URI (catu) and its header fields (cath). CTA-5007.

An answer is True, False, or None: unknown. What a matcher says in a form that is not understood here is unknown, never no.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from streamgate.access.kleene import Logic, every

_DIGESTS = {-1: "sha256", -2: "sha512_256"}
_FOLDED = (0, 1)  # scheme and host are the same in capitals (RFC 3986 section 6.2.2.1)

Search = Callable[[str, str], Logic]
"""Whether a pattern matches the whole of a text; None where the pattern, or so long a text, is not taken."""


def holds(matchers: object, text: str, search: Search) -> Logic:
    """Whether every one of ``matchers``, a map of kinds of matches to what they want, holds for ``text``."""
    if not isinstance(matchers, dict) or not matchers:
        return None
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes that are no text
        return None
    return every(_match(kind, wanted, text, search) for kind, wanted in matchers.items())


def _match(kind: object, wanted: object, text: str, search: Search) -> Logic:
    if type(kind) is not int:
        return None
    if kind in _DIGESTS:
        return _digest(_DIGESTS[kind], wanted, text)
    if kind == 4:
        # A list, whose further items would be flags, or groups, depending on whom one asks.
        one = isinstance(wanted, list) and len(wanted) == 1 and isinstance(wanted[0], str)
        return search(wanted[0], text) if one else None  # type: ignore[index]
    if not isinstance(wanted, str):
        return None
    if kind == 0:
        return text == wanted
    if kind == 1:
        return text.startswith(wanted)
    if kind == 2:
        return text.endswith(wanted)
    return wanted in text if kind == 3 else None


def _digest(name: str, wanted: object, text: str) -> Logic:
    if not isinstance(wanted, bytes) or len(wanted) != 32:
        return None
    try:
        found = hashlib.new(name, text.encode()).digest()
    except ValueError:  # not in this OpenSSL
        return None
    return hmac.compare_digest(found, wanted)


def component(kind: object, scheme: str, host: str, path: str) -> str | None:
    """A part of a URI by its number in catu, in lower case where that means the same; None for those not evaluated.

    These are the port and the query, and stem and extension, of which implementations have different notions.
    """
    if kind == 0:
        return _lower(scheme)
    if kind == 1:
        return _lower(_without_port(host))
    if kind == 3:
        return path
    if kind == 5:
        return path.rpartition("/")[0]
    return path.rpartition("/")[2] if kind == 6 else None


def folded(kind: object, matchers: object) -> object:
    """``matchers`` of a part of a URI, in lower case where the part is; patterns and digests as they are."""
    if kind not in _FOLDED or not isinstance(matchers, dict):
        return matchers
    return {how: _lower(wanted) if isinstance(wanted, str) else wanted for how, wanted in matchers.items()}


def _lower(text: str) -> str:
    """In ASCII alone: other letters have no capitals in schemes and hosts."""
    return text.encode().lower().decode()


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and (not port or port.isdecimal()) else host
