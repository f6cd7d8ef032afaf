"""What the node's own processes ask: leases, sessions by the operator, and whether the role is ready."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

from aiohttp import web

from streamgate.access.sessions import CARRIAGES, ID_BYTES, Grant, Session
from streamgate.control.auth.leases import Pair
from streamgate.control.auth.requests import body
from streamgate.control.auth.service import SERVICE
from streamgate.errors import StreamGateError

MAX_PAIRS = 1000
_MAX_LIFETIME = 2_592_000
routes = web.RouteTableDef()


@routes.post("/leases")
async def leases(request: web.Request) -> web.Response:
    """Grant leases that are asked for, and extend others. Pairs of a session and a network, 1 000 at most."""
    service = request.app[SERVICE]
    try:
        told = json.loads(await request.read())
        ask = [_pair(each[0], each[3], each[2]) for each in told.get("ask", [])]
        extend = [_pair(each[0], each[1], None) for each in told.get("extend", [])]
        fresh = bool(told.get("fresh"))
    except (ValueError, TypeError, LookupError, AttributeError):
        raise StreamGateError("request_malformed") from None
    if len(ask) + len(extend) > MAX_PAIRS:
        raise StreamGateError("request_malformed", f"at most {MAX_PAIRS} pairs at once")
    granted, refused = await service.leases.decide([*ask, *extend], fresh=fresh)
    service.telemetry.count("auth_leases", len(granted))
    for code, number in Counter(refused.values()).items():
        service.telemetry.count("auth_refusals", number, code=code)
    return web.json_response({"granted": granted, "refused": refused}, dumps=_compact)


@routes.post("/sessions")
async def sessions(request: web.Request) -> web.Response:
    """A session by the operator's own grant, for a token that the caller makes."""
    service = request.app[SERVICE]
    told = await body(request, {"asset": str, "lifetime": int, "subject": str, "carriage": str})
    asset, lifetime = told.get("asset"), told.get("lifetime", service.settings.tokens.lifetime)
    if not asset or not 1 <= lifetime <= _MAX_LIFETIME:
        raise StreamGateError("request_malformed", "asset, and a lifetime of 1 s to 30 days")
    carriage = told.get("carriage", "path")
    if carriage not in CARRIAGES:
        raise StreamGateError("request_malformed", f"carriage: one of {', '.join(CARRIAGES)}")
    now = int(service.clock())
    grant = Grant(service.ledger.fresh_id(), "", (asset,), "operator", now, now + lifetime)
    session = Session(
        service.ledger.fresh_id(), grant.id, grant.epoch, asset, "", now, grant.cap, carriage,
        max_networks=service.settings.auth.max_networks,
    )  # fmt: skip
    await service.ledger.open(grant)
    await service.ledger.grant(grant, (), session)
    return web.json_response({"session": session.id.hex(), "cap": session.cap}, status=201)


@routes.get("/metrics")
async def metrics(request: web.Request) -> web.Response:
    """This process's numbers, as Prometheus reads them; the node's /metrics has them, too."""
    telemetry = request.app[SERVICE].telemetry
    body, media_type = await asyncio.to_thread(telemetry.exposition, request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": media_type})


@routes.get("/ready")
async def ready(request: web.Request) -> web.Response:
    """200 while the stores answer; raises ``store_unavailable``."""
    await request.app[SERVICE].ledger.find([bytes(ID_BYTES)], fresh=True)
    return web.json_response({"ready": True})


def _pair(session: Any, network: Any, asset: Any) -> Pair:
    id = bytes.fromhex(session)
    if len(id) != ID_BYTES or type(network) is not str or not (asset is None or type(asset) is str):
        raise ValueError("no pair")
    return id, network, asset


def _compact(told: object) -> str:
    return json.dumps(told, separators=(",", ":"))
