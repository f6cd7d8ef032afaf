"""The operator's way in: HTTP over a Unix socket that only the server's own user may open. ``streamgate admin`` speaks it.

The same is spoken over TLS where ``admin.listen`` says so (:mod:`edge.admin_access`).

==========================  =====================================================================================
``GET /status``             the state, and each worker's
``GET /metrics``            the node's metrics
``GET /counters``           the same as one JSON object: a number for each series
``GET /cache``              what each tier holds, and what was found there
``POST /reload``            as SIGHUP
``POST /drain``             as SIGTERM
``POST /revocations``       ``{"session", "kid", "token", "grant", …: hex, "exp": s since 1970 or null}``; 204 when all workers apply it
``POST /cache/warm``        ``{"asset": id, "renditions": […], "manifests": bool, "limit": n}``; 200, a line of JSON now and then
``POST /purges``            ``{"url", "prefix", "asset" or "tag": text, "soft": bool}``; 200 when all workers applied it
==========================  =====================================================================================
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol

from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from edge import heads, problems, purges
from edge.control import Message
from edge.feed import GRACE_S
from edge.listeners import open_unix
from edge.purges import Purge
from edge.revocations import KINDS
from edge.warm_orders import Order
from streamgate.core.logging import get_logger
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError

_BACKLOG = 16
_MAX_BODY = 4096
_MAX_SUBJECT = 64  # bytes
_CLEANUP_S = 1.0
_log = get_logger("edge.admin")


class Control(Protocol):
    """What an operator can ask of a node."""

    telemetry: Telemetry

    def status(self) -> dict[str, object]: ...
    def reload(self) -> None: ...
    def stop(self) -> None: ...
    async def revoke(self, kind: str, subject: bytes, exp: int | None) -> None: ...
    async def purge(self, purge: Purge) -> None: ...
    def warm(self, order: Order) -> AsyncIterator[Message]: ...


class Admin:
    """The listener at ``path``."""

    def __init__(self, control: Control, path: Path) -> None:
        self._path = path
        self._runner = runner(control)

    async def start(self) -> None:
        """Listen; raises ``listen_failed``."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            listening = open_unix(str(self._path), _BACKLOG, mode=0o600)
        except OSError as error:
            raise StreamGateError("listen_failed", f"admin.socket: {self._path}: {error.strerror or error}") from error
        await self._runner.setup()
        await web.SockSite(self._runner, listening).start()

    async def stop(self) -> None:
        """End the connections and remove the socket."""
        await self._runner.cleanup()
        self._path.unlink(missing_ok=True)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Gate = Callable[[web.Request], Awaitable[None]]


async def _nobody_else(_: web.Request) -> None:
    """Whoever reached the socket may."""


async def _common(_: web.Request, answer: web.StreamResponse) -> None:
    heads.common(None, None, answer.headers)
    answer.headers.setdefault("Cache-Control", "no-store")


def runner(control: Control, admits: Gate = _nobody_else) -> web.AppRunner:
    """What answers operators; ``admits`` raises StreamGateError where a request is not let in."""

    @web.middleware
    async def problem_details(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            await admits(request)
            return await handler(request)
        except StreamGateError as error:
            answer = problems.response(error, 1)
        except web.HTTPException as error:
            answer = problems.from_aiohttp(error, 1)
        except Exception:
            _log.exception("an operator's request failed", path=request.path)
            answer = problems.response(StreamGateError("internal"), 1)
        if answer.status == 401:
            answer.headers["WWW-Authenticate"] = "Bearer"  # RFC 6750 section 3
        return answer

    routes = _Routes(control)
    app = web.Application(middlewares=[problem_details], client_max_size=_MAX_BODY)
    app.router.add_get("/status", routes.status)
    app.router.add_get("/metrics", routes.metrics)
    app.router.add_get("/counters", routes.counters)
    app.router.add_get("/cache", routes.cache)
    app.router.add_post("/reload", routes.reload)
    app.router.add_post("/drain", routes.drain)
    app.router.add_post("/revocations", routes.revoke)
    app.router.add_post("/purges", routes.purge)
    app.router.add_post("/cache/warm", routes.warm)
    app.on_response_prepare.append(_common)
    return web.AppRunner(app, access_log=None, shutdown_timeout=_CLEANUP_S)


class _Routes:
    def __init__(self, control: Control) -> None:
        self._control = control

    async def status(self, _: web.Request) -> web.Response:
        return web.json_response(self._control.status())

    async def metrics(self, request: web.Request) -> web.Response:
        told = await asyncio.to_thread(self._control.telemetry.exposition, request.headers.get("Accept", ""))
        return web.Response(body=told[0], headers={"Content-Type": told[1]})

    async def counters(self, _: web.Request) -> web.Response:
        return web.json_response(await self._series())

    async def cache(self, _: web.Request) -> web.Response:
        return web.json_response(cached(await self._series()))

    async def reload(self, _: web.Request) -> web.Response:
        self._control.reload()
        return web.Response(status=202)

    async def drain(self, _: web.Request) -> web.Response:
        self._control.stop()
        return web.Response(status=202)

    async def revoke(self, request: web.Request) -> web.Response:
        kind, subject, exp = parse(await _text(request), time.time())
        await self._control.revoke(kind, subject, exp)
        return web.Response(status=204)

    async def purge(self, request: web.Request) -> web.Response:
        purge, began = purges.asked(await _text(request), time.time()), time.monotonic()
        await self._control.purge(purge)
        seconds = round(time.monotonic() - began, 3)
        return web.json_response({purge.kind: purge.subject, "soft": purge.soft, "seconds": seconds})

    async def warm(self, request: web.Request) -> web.StreamResponse:
        try:
            order = Order.of(json.loads(await _text(request)))
        except ValueError:
            raise StreamGateError("request_malformed", "this is no JSON") from None
        answer = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
        async for told in self._control.warm(order):
            # What keeps it from beginning is a proper error.
            if not answer.prepared:
                await answer.prepare(request)
            await answer.write(json.dumps(told).encode() + b"\n")
        return answer

    async def _series(self) -> dict[str, float]:
        text, _type = await asyncio.to_thread(self._control.telemetry.exposition, "")
        series = {}
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
                series[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return series


async def _text(request: web.Request) -> str:
    try:
        return (await request.read()).decode()
    except UnicodeDecodeError:
        raise StreamGateError("request_malformed", "the body is no UTF-8") from None


def cached(series: dict[str, float]) -> dict[str, object]:
    """What the tiers hold and gave, of the node's ``series``; what the native path finds it finds in memory."""

    def count(name: str) -> int:
        return int(series.get(f"streamgate_{name}", 0))

    def hits(tier: str) -> int:
        return count(f'tier_hits_total{{tier="{tier}"}}')

    def purged(tier: str) -> int:
        return count(f'purged_objects_total{{tier="{tier}"}}')

    return {
        "tiers": {
            "memory": {
                "bytes": count("cache_bytes"),
                "objects": count("cache_objects"),
                "hits": hits("memory") + count("native_answers_total"),
                "purged": purged("memory"),
            },
            "disk": {
                "bytes": count("disk_bytes"),
                "objects": count("disk_objects"),
                "hits": hits("disk"),
                "purged": purged("disk"),
            },
            "redis": {"hits": hits("redis")},
        },
        "misses": count('cache_lookups_total{result="miss"}'),
    }


def parse(text: str, now: float) -> tuple[str, bytes, int | None]:
    """Kind, subject and exp of a revocation that is asked for ``now``.

    Raises ``request_malformed``; ``revocation_ended`` where exp is so long ago that it would revoke nothing.
    """
    try:
        asked = json.loads(text)
        exp = asked.pop("exp", None)
        ((kind, name),) = asked.items()
        subject = bytes.fromhex(name)
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise StreamGateError("request_malformed", f"wanted: {', '.join(KINDS)} in hex, and exp") from None
    if kind not in KINDS or not 0 < len(subject) <= _MAX_SUBJECT:
        raise StreamGateError(
            "request_malformed", f"of 1 to {_MAX_SUBJECT} bytes one of these can be revoked: {', '.join(KINDS)}"
        )
    if kind == "token" and len(subject) != 32:
        raise StreamGateError("request_malformed", "a token is named by the SHA-256 of its characters")
    if exp is not None and (type(exp) is not int or not 0 <= exp < 2**53):
        raise StreamGateError("request_malformed", "exp is in whole seconds since 1970")
    if exp is not None and exp + GRACE_S <= now:
        raise StreamGateError("revocation_ended", f"tokens that expire by {exp} (s since 1970) have all ended already")
    return kind, subject, exp
