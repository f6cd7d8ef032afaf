"""Requests below ``/api``: passed on to the auth role over its Unix socket, and its answers back, both whole and bounded."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator

import aiohttp
import yarl
from aiohttp import hdrs, web
from aiohttp.streams import StreamReader
from multidict import CIMultiDict

from edge.context import CONTEXT
from edge.foreign import network
from edge.node import Node
from streamgate.core.logging import get_logger
from streamgate.errors import StreamGateError

PREFIX = "/api"
_METHODS = "GET, HEAD, POST, DELETE, OPTIONS"
_OURS = "x-streamgate-"
# RFC 9110 section 7.6.1, and what both sides say of themselves.
_HOP_BY_HOP = frozenset(
    "connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade"
    " content-length date expect host server".split()
)
_SIGN_IN = "/api/v1/auth/"
_MOST_BYTES = 2**20  # of an answer
_BODIES = 8  # of one network that are read at once
_log = get_logger("edge.api")


def make_api(node: Node, path: str) -> web.Application:
    """The application to be mounted at PREFIX; ``path`` is the auth role's socket."""
    forwarder = _Forwarder(node, path)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", forwarder.forward)
    app.cleanup_ctx.append(forwarder.open)
    app.on_response_prepare.append(forwarder.allow)
    return app


class _Forwarder:
    def __init__(self, node: Node, path: str) -> None:
        self._node = node
        self._path = path
        self._under_way = 0
        self._reading: Counter[bytes] = Counter()
        self._session: aiohttp.ClientSession | None = None

    async def open(self, _: web.Application) -> AsyncIterator[None]:
        """Have a client as long as the application runs."""
        # A connection each: the process behind the socket may be another one the next time, and what is no GET may not be repeated.
        connector = aiohttp.UnixConnector(self._path, limit=0, force_close=True)
        skipped = (hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.USER_AGENT, hdrs.CONTENT_TYPE)
        jar = aiohttp.DummyCookieJar()
        async with aiohttp.ClientSession(
            connector=connector, auto_decompress=False, skip_auto_headers=skipped, cookie_jar=jar
        ) as self._session:
            yield

    async def allow(self, request: web.Request, response: web.StreamResponse) -> None:
        """Let pages of the origins that may read media read this, errors included."""
        self._node.cors.allow(request.headers.get(hdrs.ORIGIN), response.headers)
        if request[CONTEXT].path.startswith(_SIGN_IN):
            # What a browser keeps of a sign-in is for this origin's own pages.
            response.headers.pop(hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS, None)

    async def forward(self, request: web.Request) -> web.Response:
        """Pass a request on, but for preflights. Raises ``overloaded``, ``body_too_large``, ``head_timeout`` for a body that does not come,
        and ``auth_unavailable``.
        """
        if request.method == hdrs.METH_OPTIONS:
            answer = web.Response(status=204, headers={hdrs.CACHE_CONTROL: "no-store"})
            self._node.cors.preflight(answer.headers)
            answer.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = _METHODS
            return answer
        settings = self._node.settings.api
        body = await self._body(request)
        if self._under_way >= settings.most:
            raise StreamGateError("overloaded", "too many requests are on their way to the auth role")
        self._under_way += 1
        try:
            async with asyncio.timeout(settings.timeout):
                return await self._ask(request, body)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            if request.transport is None:
                raise ConnectionResetError("the client has gone") from error
            _log.error("the auth role does not answer", reason=type(error).__name__)
            raise StreamGateError("auth_unavailable") from None
        finally:
            self._under_way -= 1

    async def _body(self, request: web.Request) -> bytes:
        """All of the body. Who sends one slowly keeps no place of those whose body is here."""
        settings = self._node.settings.api
        try:
            with self._read_for(request[CONTEXT].client):
                async with asyncio.timeout(settings.timeout):
                    body = await _read(request.content, settings.max_body)
        except TimeoutError:
            raise StreamGateError("head_timeout", "the body did not arrive in time") from None
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionResetError("the client has gone") from error
        if body is None:
            raise StreamGateError("body_too_large", f"a body has {settings.max_body} bytes at most")
        return body

    @contextlib.contextmanager
    def _read_for(self, address: bytes) -> Iterator[None]:
        place = network(address)
        if self._reading.total() >= self._node.settings.api.most or self._reading[place] >= _BODIES:
            raise StreamGateError("overloaded", "too many bodies are being read")
        self._reading[place] += 1
        try:
            yield
        finally:
            self._reading[place] -= 1
            if not self._reading[place]:
                del self._reading[place]

    async def _ask(self, request: web.Request, body: bytes) -> web.Response:
        ctx = request[CONTEXT]
        asked = self._node.gate.asked(request, ctx.path, ctx.peer, ctx.client)
        headers = _end_to_end(request.headers.items(), request.headers.getall(hdrs.CONNECTION, ()))
        headers["X-StreamGate-Client"] = str(ipaddress.ip_address(ctx.client)) if ctx.client else ""
        headers["X-StreamGate-Scheme"], headers["X-StreamGate-Host"] = asked.scheme, asked.host
        headers[hdrs.HOST] = asked.host or "localhost"
        query = request.raw_path.partition("?")[2]
        url = yarl.URL(f"http://auth{ctx.path}{query and '?'}{query}", encoded=True)
        assert self._session is not None
        async with self._session.request(
            request.method, url, headers=headers, data=body or None, allow_redirects=False
        ) as answer:
            content = await _read(answer.content, _MOST_BYTES)
            if content is None:
                raise StreamGateError("internal", "the auth role's answer is too long")
            fields = _end_to_end(answer.headers.items(), answer.headers.getall(hdrs.CONNECTION, ()))
            fields[hdrs.CACHE_CONTROL] = "no-store"
            return web.Response(status=answer.status, body=content, headers=fields)


async def _read(stream: StreamReader, most: int) -> bytes | None:
    """All of a body; None where it has more than ``most`` bytes."""
    parts, size = [], 0
    async for part in stream.iter_any():
        size += len(part)
        if size > most:
            return None
        parts.append(part)
    return b"".join(parts)


def _end_to_end(fields: Iterable[tuple[str, str]], named: Iterable[str]) -> CIMultiDict[str]:
    """What is meant for the one at the other end, without what only we may say; ``named``: values of Connection."""
    hop_by_hop = _HOP_BY_HOP | {name.strip().lower() for value in named for name in value.split(",")}
    kept = ((name, value) for name, value in fields if name.lower() not in hop_by_hop)
    return CIMultiDict((name, value) for name, value in kept if not name.lower().startswith(_OURS))
