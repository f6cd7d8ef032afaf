"""The operator's way in: HTTP over a Unix socket that only the server's own user may open. ``streamgate admin`` speaks it.

==========================  =====================================================================================
``GET /status``             the state, and each worker's
``GET /metrics``            the node's metrics
``GET /counters``           the same as one JSON object: a number for each series
``POST /reload``            as SIGHUP
``POST /drain``             as SIGTERM
``POST /revocations``       ``{"session" or "kid": hex, "exp": s since 1970 or null}``; 204 when all workers apply it
==========================  =====================================================================================
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from edge import problems
from edge.feed import GRACE_S
from edge.listeners import open_unix
from edge.revocations import KINDS
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError

_BACKLOG = 16
_MAX_BODY = 4096
_MAX_SUBJECT = 64  # bytes
_CLEANUP_S = 1.0


class Control(Protocol):
    """What an operator can ask of a node."""

    telemetry: Telemetry

    def status(self) -> dict[str, object]: ...
    def reload(self) -> None: ...
    def stop(self) -> None: ...
    async def revoke(self, kind: str, subject: bytes, exp: int | None) -> None: ...


class Admin:
    """The listener at ``path``."""

    def __init__(self, control: Control, path: Path) -> None:
        self._control = control
        self._path = path
        app = web.Application(middlewares=[_problems], client_max_size=_MAX_BODY)
        app.router.add_get("/status", self._status)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/counters", self._counters)
        app.router.add_post("/reload", self._reload)
        app.router.add_post("/drain", self._drain)
        app.router.add_post("/revocations", self._revoke)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLEANUP_S)

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

    async def _status(self, _: web.Request) -> web.Response:
        return web.json_response(self._control.status())

    async def _metrics(self, request: web.Request) -> web.Response:
        told = await asyncio.to_thread(self._control.telemetry.exposition, request.headers.get("Accept", ""))
        return web.Response(body=told[0], headers={"Content-Type": told[1]})

    async def _counters(self, _: web.Request) -> web.Response:
        text, _type = await asyncio.to_thread(self._control.telemetry.exposition, "")
        series = {}
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
                series[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return web.json_response(series)

    async def _reload(self, _: web.Request) -> web.Response:
        self._control.reload()
        return web.Response(status=202)

    async def _drain(self, _: web.Request) -> web.Response:
        self._control.stop()
        return web.Response(status=202)

    async def _revoke(self, request: web.Request) -> web.Response:
        kind, subject, exp = parse(await request.text(), time.time())
        await self._control.revoke(kind, subject, exp)
        return web.Response(status=204)


def parse(text: str, now: float) -> tuple[str, bytes, int | None]:
    """Kind, subject and exp of a revocation that is asked for ``now``.

    Raises ``request_malformed``; ``revocation_ended`` where exp is so long ago that it would revoke nothing.
    """
    try:
        asked = json.loads(text)
        exp = asked.pop("exp", None)
        ((kind, name),) = asked.items()
        subject = bytes.fromhex(name)
    except (ValueError, AttributeError, TypeError):
        raise StreamGateError("request_malformed", "wanted: session or kid in hex, and exp") from None
    if kind not in KINDS or not 0 < len(subject) <= _MAX_SUBJECT:
        raise StreamGateError("request_malformed", f"a session or a kid of 1 to {_MAX_SUBJECT} bytes can be revoked")
    if exp is not None and (type(exp) is not int or not 0 <= exp < 2**53):
        raise StreamGateError("request_malformed", "exp is in whole seconds since 1970")
    if exp is not None and exp + GRACE_S <= now:
        raise StreamGateError("revocation_ended", f"tokens that expire by {exp} (s since 1970) have all ended already")
    return kind, subject, exp


@web.middleware
async def _problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except StreamGateError as error:
        return problems.response(error, 1)
    except web.HTTPException as error:
        return problems.from_aiohttp(error, 1)
