"""What a token restricts, evaluated whole: every claim is yes, no or unknown, and so is every node of their composition.

CTA-5007; RFC 8392 (CWT), RFC 9164 (networks). The kernel (native/claims.pyx) evaluates what is common and cheap the same way;
this is for what it calls unknown. The claims are those of a token that it has read: of their forms it has seen to most, and
what is in another form than expected is unknown here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from streamgate.access import geography, matching
from streamgate.access.geography import Place
from streamgate.access.kleene import Logic, every, negated, some

GRACE = 30
"""s after exp in which a token still counts; the next: s before nbf."""
SKEW = 60

_ORDER = (4, 5, 313, 312, 311, 315, 41, 42, 43, 316, 317, 282)
_CODES: dict[object, str] = {
    4: "token_expired", 5: "token_not_yet_valid", 313: "token_method", 312: "token_path", 311: "token_network",
    315: "token_header",
}  # fmt: skip
_UNRESTRICTED = (2, 6, 7, 320, 322, 323)
_PRIVATE = -65536
UNDERSTOOD = frozenset((1, 2, 3, 4, 5, 6, 7, 41, 42, 43, 45, 282, 308, 310, 311, 312, 313, 315, 316, 317, 322, 323))
"""Keys that crit may name: of what is evaluated here, and of what restricts nothing and is acted upon."""
_WIDTHS = {52: 4, 54: 16}
_MAPPED = bytes(10) + b"\xff\xff"


@dataclass(frozen=True, slots=True)
class Request:
    """What a request says of itself: ``path`` canonical and behind any token, ``address`` packed, b"" where not known.

    ``now`` in s since 1970. ``header`` gives a field's value by its name, several of one name joined (RFC 9110 section 5.3).
    """

    method: str
    scheme: str
    host: str
    path: str
    address: bytes
    now: int
    header: Callable[[str], str | None] = lambda _: None


class World(Protocol):
    """What is known beyond the request."""

    def search(self, pattern: str, text: str) -> Logic:
        """Whether a regular expression matches the whole of ``text``; None where it, or so long a text, is not taken."""

    def number(self, address: bytes) -> int | None:
        """The number of the network that an address belongs to."""

    def place(self, address: bytes) -> Place:
        """Where an address is."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """Whose token it is: who the key's issuer is, whom its tokens may be meant for, and which paths they may open at all."""

    name: str
    audience: Sequence[str] = ()
    prefixes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """``code`` of the refusal, "" where there is none; the ``claim`` that it comes from.

    ``once``: the token counts for one request alone (catreplay 1), and that is still to be seen to.
    """

    code: str = ""
    claim: int | str | None = None
    once: bool = False


def judge(
    claims: Mapping[object, object], request: Request, world: World, issuer: Issuer, *, bootstrap: bool = False
) -> Judgement:
    """The first no, in the order of the checks, else the first unknown, which is ``token_unsupported``.

    ``bootstrap``: the request is one that a token which counts once may be used for.
    """
    once = bootstrap and claims.get(308) == 1 and type(claims.get(308)) is int
    unknown: int | str | None = None
    found = Evaluation(request, world, issuer)
    refused = False
    for key in (*_ORDER, *(key for key in claims if key not in _ORDER)):
        if key == 312 and not _covered(request.path, issuer.prefixes):
            return Judgement("token_path")
        if key not in claims or (once and key == 308):
            continue
        answer = found.claim(key, claims[key])
        if answer is False:
            return Judgement(_CODES.get(key, "token_condition"), _named(key))
        if answer is None and not refused:
            refused, unknown = True, _named(key)
    return Judgement("token_unsupported", unknown) if refused else Judgement(once=once)


class Evaluation:
    """Claims, at any depth, against one request."""

    def __init__(self, request: Request, world: World, issuer: Issuer) -> None:
        self._request = request
        self._world = world
        self._issuer = issuer

    def claims(self, claims: object) -> Logic:
        """A map of claims: all must hold."""
        if not isinstance(claims, dict):
            return None
        return every(self.claim(key, value) for key, value in claims.items())

    def claim(self, key: object, value: object) -> Logic:
        """One claim; those that are not evaluated are unknown, but for private ones and those that restrict nothing."""
        if type(key) is not int:
            return None
        if key < _PRIVATE or key in _UNRESTRICTED:
            return True
        known = _EVALUATED.get(key)
        return known(self, value) if known is not None else None

    def _issued(self, value: object) -> Logic:
        return value == self._issuer.name

    def _audience(self, value: object) -> Logic:
        named = value if isinstance(value, list) else [value]
        return any(one in self._issuer.audience for one in named)

    def _expires(self, value: object) -> Logic:
        return self._request.now < value + GRACE if _is_number(value) else None  # type: ignore[operator]

    def _starts(self, value: object) -> Logic:
        return self._request.now >= value - SKEW if _is_number(value) else None  # type: ignore[operator]

    def _method(self, value: object) -> Logic:
        return self._request.method in value if isinstance(value, list) else None

    def _uri(self, value: object) -> Logic:
        if not isinstance(value, dict) or not value:
            return None
        return every(self._component(kind, matchers) for kind, matchers in value.items())

    def _component(self, kind: object, matchers: object) -> Logic:
        asked = self._request
        text = matching.component(kind, asked.scheme, asked.host, asked.path)
        return None if text is None else matching.holds(matching.folded(kind, matchers), text, self._world.search)

    def _headers(self, value: object) -> Logic:
        if not isinstance(value, dict) or not value:
            return None
        return every(self._header(name, matchers) for name, matchers in value.items())

    def _header(self, name: object, matchers: object) -> Logic:
        if not isinstance(name, str):
            return None
        text = self._request.header(name)
        found = matching.holds(matchers, text or "", self._world.search)
        # Nothing matches a field that is not there, if it is known what a match would be.
        return False if text is None and found is not None else found

    def _networks(self, value: object) -> Logic:
        return some(self._network(one) for one in value) if isinstance(value, list) else None

    def _network(self, value: object) -> Logic:
        address = self._request.address
        if address.startswith(_MAPPED) and len(address) == 16:
            address = address[12:]
        if type(value) is int:
            number = self._world.number(address)
            return None if number is None else number == value
        tag, network = value if isinstance(value, tuple) else (None, None)
        width = _WIDTHS.get(tag)
        if width is None or not address:
            return None
        length, prefix = network if isinstance(network, list) and len(network) == 2 else (8 * width, network)
        if not isinstance(prefix, bytes) or type(length) is not int or not 0 <= length <= 8 * width:
            return None
        if len(address) != width:
            return False
        rest = 8 * width - length
        whole = int.from_bytes(prefix.ljust(width, b"\0")[:width], "big")
        return int.from_bytes(address, "big") >> rest == whole >> rest

    def _countries(self, value: object) -> Logic:
        place = self._world.place(self._request.address)
        codes = value if isinstance(value, list) else [value]
        return some(geography.in_country(code, place) if isinstance(code, str) else None for code in codes)

    def _circles(self, value: object) -> Logic:
        """A circle, or a list of them; each is degrees north, degrees east, and metres."""
        if not isinstance(value, list) or not value:
            return None
        point = self._world.place(self._request.address).point
        areas = value if all(isinstance(one, list) for one in value) else [value]
        return some(
            geography.in_circle(area, point) if len(area) == 3 and all(map(_is_number, area)) else None
            for area in areas
        )

    def _cells(self, value: object) -> Logic:
        point = self._world.place(self._request.address).point
        cells = value if isinstance(value, list) else [value]
        return some(geography.in_cell(cell, point) if isinstance(cell, str) else None for cell in cells)

    def _some(self, value: object) -> Logic:
        return some(self.claims(one) for one in value) if isinstance(value, list) and value else None

    def _every(self, value: object) -> Logic:
        return every(self.claims(one) for one in value) if isinstance(value, list) and value else None

    def _critical(self, value: object) -> Logic:
        understood = isinstance(value, list) and value and all(type(key) is int and key in UNDERSTOOD for key in value)
        return True if understood else None


_EVALUATED: dict[int, Callable[[Evaluation, object], Logic]] = {
    1: Evaluation._issued,
    3: Evaluation._audience,
    4: Evaluation._expires,
    5: Evaluation._starts,
    41: Evaluation._some,
    42: lambda self, value: negated(self._some(value)),
    43: Evaluation._every,
    45: Evaluation._critical,
    282: Evaluation._cells,
    308: lambda _, value: True if type(value) is int and value == 0 else None,
    310: lambda _, value: True if type(value) is int and value == 1 else None,
    311: Evaluation._networks,
    312: Evaluation._uri,
    313: Evaluation._method,
    315: Evaluation._headers,
    316: Evaluation._countries,
    317: Evaluation._circles,
}


def _covered(path: str, prefixes: Sequence[str]) -> bool:
    return not prefixes or path.startswith(tuple(prefixes))


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _named(key: object) -> int | str | None:
    return key if isinstance(key, int | str) else None
