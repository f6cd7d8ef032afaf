"""What a request of the public API says of itself: the edge tells who asks and how, the body is JSON of a few names."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from streamgate.control.auth.service import SERVICE
from streamgate.errors import StreamGateError

TOKEN_NAME = "CTA-Common-Access-Token"
TOKEN_COOKIE = "cta-common-access-token"
_LOCAL = ("127.0.0.1", "localhost", "[::1]")
_TEXT = 4096  # characters of a text in a body


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request comes from, as the edge believes: the client's address in text ("" unknown), scheme and host."""

    client: str
    scheme: str
    host: str

    @property
    def source(self) -> str:
        """Whom a rate is of: an IPv4 address, or the /64 of an IPv6 one, of which somebody has them all."""
        with contextlib.suppress(OSError, ValueError):
            socket.inet_pton(socket.AF_INET, self.client)
            return self.client
        try:
            address = ipaddress.ip_address(self.client)
        except ValueError:
            return ""
        return str(address if address.version == 4 else ipaddress.ip_network((address, 64), strict=False))

    @property
    def plain(self) -> bool:
        """Whether it came unencrypted over this machine alone, where cookies need not be Secure."""
        if self.scheme != "http":
            return False
        try:
            client = ipaddress.ip_address(self.client)
        except ValueError:
            return False
        if not (getattr(client, "ipv4_mapped", None) or client).is_loopback:
            return False
        host = self.host if self.host.endswith("]") else self.host.rpartition(":")[0] or self.host
        return host.lower() in _LOCAL


def origin(request: web.Request) -> Origin:
    """What the edge has told of a request."""
    headers = request.headers
    return Origin(
        headers.get("X-StreamGate-Client", ""),
        headers.get("X-StreamGate-Scheme", "https"),
        headers.get("X-StreamGate-Host", ""),
    )


async def body(request: web.Request, names: Mapping[str, type]) -> dict[str, Any]:
    """The body's members, all of them optional; an empty body has none. Raises ``request_malformed``, ``body_too_large``."""
    if not request.can_read_body:
        return {}
    most = request.app[SERVICE].settings.api.max_body
    if (request.content_length or 0) > most or len(data := await request.read()) > most:
        raise StreamGateError("body_too_large")
    if not data:
        return {}
    # A form of another site's page cannot send this type without having been allowed to.
    if request.content_type != "application/json":
        raise StreamGateError("request_malformed", "the body is application/json")
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        raise StreamGateError("request_malformed", "the body is no JSON") from None
    if not isinstance(told, dict):
        raise StreamGateError("request_malformed", "the body is a JSON object")
    for name, value in told.items():
        if name not in names:
            raise StreamGateError("request_malformed", f"the body may have {', '.join(names) or 'nothing'}")
        if type(value) is not names[name] or (isinstance(value, str) and len(value) > _TEXT):
            raise StreamGateError("request_malformed", f"{name}: not of its type, or too long")
    return told


def bearer(request: web.Request) -> str | None:
    """What ``Authorization: Bearer`` carries (RFC 6750 section 2.1)."""
    scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
    return rest.strip() if scheme.lower() == "bearer" and rest.strip() else None


def playback_token(request: web.Request, told: Mapping[str, Any]) -> str:
    """The one playback token of a request: in the body, a header or the cookie.

    Raises ``token_required``, and ``token_ambiguous`` where there are two different ones.
    """
    found = [told.get("token"), request.headers.get(TOKEN_NAME), bearer(request)]
    given = list(dict.fromkeys(each.strip() for each in found if each))
    # Cookies come by themselves, so they count where nothing else was sent; there is one for each asset.
    cookies = [request.cookies[name] for name in (TOKEN_COOKIE, TOKEN_NAME) if request.cookies.get(name)]
    given = given or list(dict.fromkeys(cookies))
    if not given:
        raise StreamGateError("token_required")
    if len(given) > 1:
        raise StreamGateError("token_ambiguous")
    return given[0]


def set_cookie(
    answer: web.Response, name: str, value: str, origin: Origin, *, path: str, max_age: int, same_site: str
) -> None:
    """A cookie that scripts cannot read; Secure, unless the request came unencrypted over this machine alone."""
    answer.set_cookie(
        name,
        value,
        path=path,
        max_age=max_age,
        httponly=True,
        secure=not origin.plain,
        samesite=same_site,
    )


def host_name(name: str, origin: Origin) -> str:
    """A cookie's name with the prefix that binds it to its host (RFC 6265bis section 4.1.3.2), where it may have one."""
    return name if origin.plain else f"__Host-{name}"
