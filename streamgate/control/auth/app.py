"""The auth role's HTTP: an aiohttp application, for the node's own processes, who pass on what viewers ask."""

from __future__ import annotations

import time

from aiohttp import web
from aiohttp.typedefs import Handler

from streamgate.control.auth import node_calls, playback, sign_in
from streamgate.control.auth.service import SERVICE, Service
from streamgate.core import problems
from streamgate.core.logging import get_logger
from streamgate.errors import StreamGateError

_log = get_logger("streamgate.auth")
_BATCH = 1024 * 1024  # bytes of the node's own calls
_RETRY_S = 1
RENEW = "/api/v1/playback/renew"
_BY_STATUS = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}


def make_app(service: Service) -> web.Application:
    """The application; answers are never to be stored."""
    app = web.Application(client_max_size=_BATCH, middlewares=[_counted, _problems])
    app[SERVICE] = service
    app.add_routes([*playback.routes, *sign_in.routes, *node_calls.routes])
    return app


@web.middleware
async def _counted(request: web.Request, handler: Handler) -> web.StreamResponse:
    telemetry, began = request.app[SERVICE].telemetry, time.perf_counter()
    answer = await handler(request)
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "none"
    telemetry.count("auth_requests", route=route, status=str(answer.status))
    telemetry.observe("auth_seconds", time.perf_counter() - began, route=route)
    return answer


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as RFC 9457 has them; what is unforeseen is logged, and never told."""
    try:
        answer = await handler(request)
    except StreamGateError as error:
        request.app[SERVICE].telemetry.count("auth_refusals", code=error.code)
        answer = problem(error)
    except web.HTTPException as error:
        code = _BY_STATUS.get(error.status, "internal" if error.status >= 500 else "request_malformed")
        answer = problem(StreamGateError(code), error.status)
        if "Allow" in error.headers:
            answer.headers["Allow"] = error.headers["Allow"]
    except Exception:
        _log.exception("a request failed")
        answer = problem(StreamGateError("internal"))
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["Referrer-Policy"] = "no-referrer"
    return answer


def problem(error: StreamGateError, status: int | None = None) -> web.Response:
    """The whole answer to an error; 401 says where to renew, or that one must sign in."""
    status = status or error.status
    members: dict[str, object] = {}
    headers: dict[str, str] = {}
    if status == 401 and error.code in sign_in.CODES:
        headers["WWW-Authenticate"] = "Bearer"
        members["sign_in"] = sign_in.LOGIN
    elif status == 401:
        headers["WWW-Authenticate"] = f'CTA-Common-Access-Token renew="{RENEW}"'
        members["renew"] = RENEW
    if status in (429, 503):
        headers["Retry-After"] = str(_RETRY_S)
    detail = "" if error.code == "store_unavailable" else error.detail  # which may name files
    return web.Response(
        status=status,
        body=problems.body(StreamGateError(error.code, detail), status, **members),
        headers=headers,
        content_type=problems.MEDIA_TYPE,
    )
