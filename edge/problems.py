"""Errors as ``application/problem+json`` (RFC 9457), whoever raised them."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from edge.cors import METHODS
from streamgate.access.tokens import NAME
from streamgate.core import problems
from streamgate.core.problems import MEDIA_TYPE
from streamgate.errors import StreamGateError

TOKEN_SCHEME = NAME
RENEW = "/api/v1/playback/renew"

_BY_STATUS = {404: "not_found", 405: "method_not_allowed", 417: "expectation_failed", 431: "head_too_large"}


def from_http(error: web.HTTPException) -> StreamGateError:
    """The code that fits an error which aiohttp, or a mounted application, raised by its status."""
    fallback = "internal" if error.status >= 500 else "request_malformed"
    return StreamGateError(_BY_STATUS.get(error.status, fallback))


def headers(error: StreamGateError, retry_after: int) -> dict[str, str]:
    """The fields that belong to the error itself."""
    made = {"Cache-Control": "no-store"}
    if error.status in (429, 503):
        made["Retry-After"] = str(retry_after)
    if error.status == 401:
        # RFC 9110 section 11.6.1 wants a challenge; browsers ask nobody for a password because of this one.
        made["WWW-Authenticate"] = f'{TOKEN_SCHEME} renew="{RENEW}"' if _renewable(error) else TOKEN_SCHEME
    if error.status == 405:
        made["Allow"] = METHODS
    return made


def body(error: StreamGateError, status: int | None = None) -> bytes:
    """The problem as JSON; who brings a token that counts no more is told where to renew."""
    members = {"renew": RENEW} if _renewable(error) else {}
    return problems.body(error, status, **members)


def _renewable(error: StreamGateError) -> bool:
    # Who brought none has nothing that could be renewed.
    return error.status == 401 and error.code.startswith(("token_", "session_")) and error.code != "token_required"


def response(error: StreamGateError, retry_after: int, status: int | None = None) -> web.Response:
    """The whole answer; ``status`` where a mounted application chose one that the code does not have."""
    return web.Response(
        status=status or error.status,
        body=body(error, status),
        headers=headers(error, retry_after),
        content_type=MEDIA_TYPE,
    )


def from_aiohttp(error: web.HTTPException, retry_after: int) -> web.Response:
    """The answer for an error of aiohttp or of a mounted application, with the fields that its status needs."""
    answer = response(from_http(error), retry_after, error.status)
    for name in ("Allow", "Retry-After", "WWW-Authenticate"):
        if name in error.headers:
            answer.headers[name] = error.headers[name]
    return answer


def bare(answer: web.Response) -> bytes:
    """``answer`` as bytes, for connections that have no request yet; the connection is closed after it."""
    content = answer.body if isinstance(answer.body, bytes) else b""
    fields = {**answer.headers, "Content-Length": str(len(content)), "Connection": "close"}
    lines = [
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
        *(f"{name}: {value}" for name, value in fields.items()),
    ]
    return "\r\n".join((*lines, "", "")).encode("ascii") + content
