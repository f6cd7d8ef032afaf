"""Sign-in over HTTP. Browsers keep the refresh token in a cookie that only this host is sent; others ask for it in the body."""

from __future__ import annotations

from aiohttp import web

from streamgate.control.auth import requests
from streamgate.control.auth.service import SERVICE
from streamgate.control.auth.signing_in import SignedIn
from streamgate.errors import StreamGateError

LOGIN = "/api/v1/auth/login"
CODES = frozenset(("sign_in_required", "sign_in_failed", "refresh_invalid"))
"""Errors that signing in helps against."""
REFRESH_COOKIE = "streamgate-refresh"
_REFRESH = {"refresh_token": str}
routes = web.RouteTableDef()


@routes.post(LOGIN)
async def login(request: web.Request) -> web.Response:
    """An access token, and a refresh token in a cookie; ``cookie`` false: in the body."""
    origin = requests.origin(request)
    told = await requests.body(request, {"account": str, "password": str, "cookie": bool})
    if not told.get("account") or not told.get("password"):
        raise StreamGateError("request_malformed", "account and password")
    signed_in = await request.app[SERVICE].signing_in.login(told["account"], told["password"], origin.source)
    return _answer(request, signed_in, in_cookie=told.get("cookie", True))


@routes.post("/api/v1/auth/refresh")
async def refresh(request: web.Request) -> web.Response:
    """New ones for the refresh token in the body or the cookie."""
    token, in_cookie = await _token(request)
    return _answer(request, await request.app[SERVICE].signing_in.renew(token), in_cookie=in_cookie)


@routes.post("/api/v1/auth/logout")
async def logout(request: web.Request) -> web.Response:
    """End what came of that sign-in."""
    token, _ = await _token(request)
    await request.app[SERVICE].signing_in.logout(token)
    answer = web.Response(status=204)
    _set(answer, request, "", 0)
    return answer


async def _token(request: web.Request) -> tuple[str, bool]:
    """The refresh token, and whether it came in the cookie; raises ``refresh_invalid``."""
    told = await requests.body(request, _REFRESH)
    kept = request.cookies.get(requests.host_name(REFRESH_COOKIE, requests.origin(request)))
    token = told.get("refresh_token") or kept
    if not token:
        raise StreamGateError("refresh_invalid", "there is no refresh token")
    return token, not told.get("refresh_token")


def _answer(request: web.Request, signed_in: SignedIn, *, in_cookie: bool) -> web.Response:
    told: dict[str, object] = {
        "access_token": signed_in.access,
        "token_type": "Bearer",
        "expires_in": signed_in.life,
        "account": signed_in.account,
    }
    if not in_cookie:
        told["refresh_token"] = signed_in.refresh
    answer = web.json_response(told)
    if in_cookie:
        _set(answer, request, signed_in.refresh, max(0, signed_in.expires - int(request.app[SERVICE].clock())))
    return answer


def _set(answer: web.Response, request: web.Request, value: str, max_age: int) -> None:
    origin = requests.origin(request)
    name = requests.host_name(REFRESH_COOKIE, origin)
    requests.set_cookie(answer, name, value, origin, path="/", max_age=max_age, same_site="Strict")
