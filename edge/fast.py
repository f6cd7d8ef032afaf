"""The native hot path for a node: the factory of its protocols, and the answers that are not kept in memory."""

from __future__ import annotations

import asyncio
from asyncio import selector_events
from collections.abc import Callable

from uvloop import loop as uvloop_loop

from edge import compression, heads, problems
from edge.app import common_headers
from edge.cutting import Cutter
from edge.deliver import RangeNotSatisfiable
from edge.node import Node
from edge.proxies import Proxies
from edge.shared_hits import Asker
from streamgate.errors import StreamGateError
from streamgate.native import hotpath
from streamgate.native.accesslog import AccessLog
from streamgate.native.hotpath import Stored
from streamgate.native.limiter import Limiter

# Whose sockets carry what is written to them as it is.
PLAIN: tuple[type, ...] = (
    uvloop_loop.TCPTransport,  # type: ignore[attr-defined]
    uvloop_loop.UnixTransport,  # type: ignore[attr-defined]
    selector_events._SelectorSocketTransport,  # type: ignore[attr-defined]
)


def factory(
    node: Node,
    fallback: Callable[[bytes], hotpath.Handler],
    *,
    log: AccessLog | None = None,
    by_address: Limiter | None = None,
    by_token: Limiter | None = None,
    asker: Asker | None = None,
) -> hotpath.Factory:
    """What makes the protocols of a node's connections; to be called in the event loop.

    ``fallback`` makes what answers the rest, for a client's packed address. ``asker`` looks in Redis for what memory lacks.
    """
    server = node.settings.server
    proxies = Proxies(server.trusted_proxies)
    return hotpath.Factory(
        asyncio.get_running_loop(),
        cache=node.tiers.memory.index,
        verifier=node.gate.verifier,
        leases=node.leasing.table,
        open_assets=node.gate.open,
        health=node.health,
        fallback=fallback,
        problem=lambda code: refusal(node, code),
        unsatisfiable=lambda size, route, disk: unsatisfiable(node, size, route, disk),
        negotiate=compression.negotiate,
        counters=node.telemetry.block(hotpath.COUNTERS),
        trusts=proxies.trusts if proxies else None,
        client=proxies.told,
        cutter=cutter(node) if asker is None else asker,
        by_address=by_address,
        by_token=by_token,
        log=log,
        reports=node.reports,
        plain=PLAIN,
        by_origin=set(node.settings.edge.cors_origins) != {"*"},
        line=server.max_request_line,
        field=server.max_header_field,
        fields=server.max_header_fields,
        head=server.max_head,
        connections=server.max_connections,
        per_address=node.settings.limits.connections_per_address,
        head_timeout=server.head_timeout,
        keepalive_timeout=server.keepalive_timeout,
        send_timeout=server.send_timeout,
    )


def cutter(node: Node) -> Cutter | None:
    """What cuts for the hot path; none where there is a disk tier: what that lacks is to get there."""
    return None if node.tiers.disk.budget else Cutter(node)


def refusal(node: Node, code: str) -> bytes:
    """A whole answer to what is no request, counted; the connection ends with it."""
    error = StreamGateError(code)
    if code != "overloaded":
        node.telemetry.count("errors", code=code)
        node.telemetry.count("requests", route="malformed", status=str(error.status))
    answer = problems.response(error, node.settings.edge.retry_after)
    common_headers(node, None, answer)
    return problems.bare(answer)


def unsatisfiable(node: Node, size: int, route: str, disk: bool) -> Stored:
    """What is sent where a range lies beyond the ``size`` bytes of an object in memory or on ``disk`` (RFC 9110 section 15.5.17)."""
    error = RangeNotSatisfiable(size)
    node.telemetry.count("errors", code=error.code)
    answer = problems.response(error, node.settings.edge.retry_after)
    assert isinstance(answer.body, bytes)
    fields = dict(answer.headers)
    fields["Content-Range"] = f"bytes */{size}"
    fields["Cache-Status"] = heads.cache_status("disk" if disk else "memory", asked=True)
    heads.common(node.cors, None, fields)
    head = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in fields.items())
    return Stored(b'""', head, b"", answer.body, route=route)
