"""Renewal in band (CTA-5007, catr): the answer to a request with a token that is about to end brings the next one.

The next token goes the way that this one came: a cookie's is set anew, a header's comes in a header of the answer, and who asks
for a playlist with a token in the path or the query is sent to the form with the new one. A segment is never redirected. What
an answer brings is added when it is sent, and such an answer is kept by nobody.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Protocol

from streamgate.access import tokens
from streamgate.access.keys import SharedKey
from streamgate.access.sessions import GRACE_S
from streamgate.access.tokens import AUTOMATIC, BY_COOKIE, BY_HEADER, BY_REDIRECT, NAME, Renewal
from streamgate.core.logging import get_logger
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.native.cat import CLAIMS, Token

COOKIES = (NAME, tokens.COOKIE)
"""The cookie's spellings: CTA-5007's, and the one that we set."""
REDIRECTS = (302, 307)
_EXPOSED = "Access-Control-Expose-Headers"
_KEPT = "private, no-store"
# Names that catr may give: none that means something in HTTP.
_FIELD = re.compile(r"(?:CTA|X)-[0-9A-Za-z_-]{1,60}", re.IGNORECASE)
_WAYS = {"cookie": BY_COOKIE, "header": BY_HEADER, "path": BY_REDIRECT, "query": BY_REDIRECT}
_NAMES = {BY_COOKIE: "cookie", BY_HEADER: "header", BY_REDIRECT: "redirect"}
_LOCAL = ("127.0.0.1", "localhost", "[::1]")
_log = get_logger("edge.renewal")


class Rate(Protocol):
    """How often a session may be given a new token."""

    def ask(self, key: bytes, now: int) -> int:
        """0, or how long it has to wait, in ns; see :class:`streamgate.native.limiter.Limiter`."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """The next token. ``way``: BY_COOKIE, BY_HEADER or BY_REDIRECT; ``field``: a line of the answer's head, and ``status`` a redirect's."""

    token: str
    way: int
    field: tuple[str, str] = ("", "")
    status: int = 302

    def tell(self, headers: MutableMapping[str, str]) -> None:
        """Add it to an answer's head, which nobody may keep then: who plays back what was kept would get a token of the past."""
        name, value = self.field
        if not name or name in headers:
            return
        headers[name] = value
        headers["Cache-Control"] = _KEPT
        if self.way == BY_HEADER and name != NAME and _EXPOSED in headers:
            headers[_EXPOSED] = f"{headers[_EXPOSED]}, {name}"


class Renewing:
    """Makes the next tokens of sessions, as often as ``rate`` lets it."""

    def __init__(self, rate: Rate, telemetry: Telemetry, clock: Callable[[], float] = time.time) -> None:
        self._keys: dict[bytes, SharedKey] = {}
        self._signer: SharedKey | None = None
        self._rate = rate
        self._telemetry = telemetry
        self._clock = clock

    def configure(self, keys: Sequence[SharedKey], signer: SharedKey | None = None) -> None:
        """From now on tokens are made with ``signer``; None: with that of ``keys`` that the one before was made with.

        Others may not have a newer one yet. Without any of them no tokens are made.
        """
        self._keys, self._signer = {key.kid: key for key in keys}, signer

    def offer(
        self, token: Token, carrier: str, asset: str, cap: float, *, playlist: bool, secure: bool
    ) -> Renewed | None:
        """What the answer to a good request should bring, if anything.

        ``carrier`` is where its token was, ``cap`` when its session ends, in s since 1970 (0: it has none, and so no next
        token); ``playlist``: what is asked for may be redirected; ``secure``: the cookie is for encrypted requests alone.
        """
        now = int(self._clock())
        key = self._signer or self._keys.get(token.kid)
        if now < token.due or key is None or not cap:
            return None
        claims = token.payload_claims()
        catr, way = Renewal.of(claims), _WAYS.get(carrier)
        if claims.get(CLAIMS["catreplay"]):
            return None  # what counts once would count for ever
        if catr is None or way is None or catr.kind not in (AUTOMATIC, way) or (way == BY_REDIRECT and not playlist):
            return None
        expires = min(now + catr.add, int(cap))
        # Also what keeps a redirect from leading to another at once.
        if expires <= token.deadline - GRACE_S or self._rate.ask(token.session, time.monotonic_ns()):
            return None
        try:
            text = tokens.renewed(key, claims, expires=expires)
        except StreamGateError as error:
            _log.warning("a token cannot be renewed", code=error.code, reason=error.detail)
            return None
        self._telemetry.count("token_renewals", way=_NAMES[way])
        if way == BY_REDIRECT:
            return Renewed(text, way, status=catr.status if catr.status in REDIRECTS else 302)
        if way == BY_HEADER:
            return Renewed(text, way, (catr.header if _FIELD.fullmatch(catr.header) else NAME, text))
        name = catr.cookie if catr.cookie in COOKIES else tokens.COOKIE
        return Renewed(text, way, ("Set-Cookie", _cookie(name, text, asset, int(cap) - now, secure)))


def on_this_machine(scheme: str, host: str, address: bytes) -> bool:
    """Whether a request came unencrypted over this machine alone, where cookies need not be Secure."""
    named = host if host.endswith("]") else host.rpartition(":")[0] or host
    return scheme == "http" and named.lower() in _LOCAL and bool(address) and ip_address(address).is_loopback


def _cookie(name: str, text: str, asset: str, max_age: int, secure: bool) -> str:
    """As the auth role sets it (RFC 6265 section 4.1)."""
    path = f"/v/{asset}/"
    return f"{name}={text}; HttpOnly; Max-Age={max_age}; Path={path}; SameSite=Lax{'; Secure' if secure else ''}"
