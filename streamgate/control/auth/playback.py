"""Playback over HTTP: starting it, renewing its token, looking at its session, ending it."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from streamgate.access.sessions import CARRIAGES
from streamgate.control.auth import requests
from streamgate.control.auth.grants import Issued
from streamgate.control.auth.service import SERVICE
from streamgate.errors import StreamGateError

RENEW = "/api/v1/playback/renew"
BROWSER_COOKIE = "streamgate-browser"
_BROWSER_S = 31_536_000
_TOKEN = {"token": str}
routes = web.RouteTableDef()


# Before {asset}: "renew" and "session" are no assets here.
@routes.post(RENEW)
async def renew(request: web.Request) -> web.Response:
    """A token that follows the one that is sent, in the same session."""
    service, origin = request.app[SERVICE], requests.origin(request)
    text = requests.playback_token(request, await requests.body(request, _TOKEN))
    return _issued(await service.grants.renew(text, origin.client), origin, 200)


@routes.get("/api/v1/playback/session")
async def show(request: web.Request) -> web.Response:
    """What the token's session is, while it goes on."""
    session = await request.app[SERVICE].grants.session(requests.playback_token(request, {}))
    return web.json_response(
        {
            "session": session.id.hex(),
            "grant": session.grant.hex(),
            "asset": session.asset,
            "carriage": session.carriage,
            "start": session.start,
            "cap": session.cap,
        }
    )


@routes.delete("/api/v1/playback/session")
async def end(request: web.Request) -> web.Response:
    """End the token's session; one that has ended already is fine."""
    origin, text = requests.origin(request), requests.playback_token(request, await requests.body(request, _TOKEN))
    session = await request.app[SERVICE].grants.end(text, origin.source)
    answer = web.Response(status=204)
    if session is not None and session.carriage == "cookie":
        _set_token(answer, "", session.asset, origin, 0)
    return answer


@routes.post("/api/v1/playback/{asset}")
async def start(request: web.Request) -> web.Response:
    """A grant by the asset's policy, a session, and its first token."""
    service, origin = request.app[SERVICE], requests.origin(request)
    told = await requests.body(request, {"password": str, "carriage": str, "grant": str})
    carriage = told.get("carriage", "path")
    if carriage not in CARRIAGES:
        raise StreamGateError("request_malformed", f"carriage: one of {', '.join(CARRIAGES)}")
    access = requests.bearer(request)
    name = requests.host_name(BROWSER_COOKIE, origin)
    issued = await service.grants.start(
        request.match_info["asset"],
        account=service.signing_in.account(access) if access is not None else None,
        browser=request.cookies.get(name),
        client=origin.client,
        source=origin.source,
        password=told.get("password"),
        carriage=carriage,
        grant=_id(told["grant"]) if "grant" in told else None,
        page=request.headers.get("Origin"),
        own=f"{origin.scheme}://{origin.host}",
    )
    answer = _issued(issued, origin, 201)
    if issued.browser is not None:
        requests.set_cookie(answer, name, issued.browser, origin, path="/", max_age=_BROWSER_S, same_site="Lax")
    return answer


def _id(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise StreamGateError("request_malformed", "grant: what an answer named so") from None


def _issued(issued: Issued, origin: requests.Origin, status: int) -> web.Response:
    session, text = issued.session, issued.token
    base = f"/t/{text}/v/{session.asset}" if session.carriage == "path" else f"/v/{session.asset}"
    told: dict[str, Any] = {
        "grant": session.grant.hex(),
        "session": session.id.hex(),
        "token": text,
        "expires": issued.expires,
        "cap": session.cap,
        "carriage": session.carriage,
        "urls": {"hls": f"{base}/main.m3u8", "dash": f"{base}/main.mpd"},
        "renew": {"url": RENEW, "at": issued.renew_at},
    }
    answer = web.json_response(told, status=status)
    if session.carriage == "cookie":
        _set_token(answer, text, session.asset, origin, session.cap - issued.now)
    return answer


def _set_token(answer: web.Response, text: str, asset: str, origin: requests.Origin, max_age: int) -> None:
    requests.set_cookie(
        answer, requests.TOKEN_COOKIE, text, origin, path=f"/v/{asset}/", max_age=max_age, same_site="Lax"
    )
