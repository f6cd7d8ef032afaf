"""Behind a proxy that says for whom it asks: the hot path of both workers takes its word as the other way does, for each request."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from streamgate.storage.assets import discover, open_asset
from tests.edge.gated import assets, key_folder
from tests.edge.nodes import RunningNode, node, until
from tests.edge.test_workers_tokens import Told, mint, signed

ONE, OTHER = "203.0.113.9", "198.51.100.7"
LIMIT = 12


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return assets(tmp_path_factory.mktemp("proxied"))


@pytest.fixture(scope="module")
def segment(library: Path) -> str:
    """The path of a segment behind an asset."""
    made = next(open_asset(ref) for ref in discover(library) if ref.id == "gated").presentation
    return f"{made.video[0].name}/0.m4s"


def start(library: Path, data: Path, **more: Any) -> Any:
    log = {"access": True, "access_file": str(data / "access.log"), "whole_addresses": True}
    server = {"trusted_proxies": ["127.0.0.0/8"]}
    return node(library, data / "data", server=server, tokens={"keys": str(key_folder(data))}, log=log, **more)


@pytest.fixture(scope="module")
def running(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    with start(library, tmp_path_factory.mktemp("node")) as started:
        yield started


@pytest.fixture
def both(running: RunningNode, segment: str) -> Iterator[list[HTTPConnection]]:
    """A connection to each worker, which has the segment in memory."""
    with running.each_worker() as connections:
        for connection in connections:
            for asset in ("free", f"t/{mint()}/v/gated"):
                path = f"/v/free/{segment}" if asset == "free" else f"/{asset}/{segment}"
                until(partial(is_kept, connection, path))
        yield connections


def said(connection: HTTPConnection, path: str, *fields: tuple[str, str]) -> Told:
    return Told(connection, path, fields)


def is_kept(connection: HTTPConnection, path: str) -> bool:
    return "hit" in str(said(connection, path).headers["Cache-Status"])


def native(answer: Told) -> bool:
    return str(answer.headers["Server-Timing"]).startswith("native;")


def logged(running: RunningNode, marker: str) -> str:
    """The client of the request whose trace has this id."""

    def find() -> str:
        lines = (running.data.parent / "access.log").read_text().splitlines()
        return next((str(line["client"]) for line in map(json.loads, lines) if line.get("trace_id") == marker), "")

    return str(until(find))


@pytest.mark.parametrize(
    ("fields", "client", "natively"),
    [
        ([("X-Forwarded-For", ONE)], ONE, True),
        ([("X-Forwarded-For", f"{OTHER}, {ONE}")], ONE, True),
        ([("X-Forwarded-For", f"{ONE}, 127.0.0.2")], ONE, True),
        ([("x-forwarded-for", "2001:db8::7"), ("X-Forwarded-Proto", "HTTPS")], "2001:db8::7", True),
        ([("X-Forwarded-For", "unknown")], "127.0.0.1", True),
        ([], "127.0.0.1", True),
        ([("X-Forwarded-For", OTHER), ("X-Forwarded-For", ONE)], ONE, False),
        ([("Forwarded", f"for={ONE}"), ("X-Forwarded-For", OTHER)], ONE, False),
        ([("X-Forwarded-For", f"{ONE}, " * 40 + OTHER)], OTHER, False),
    ],
    ids=["one", "chain", "two of ours", "IPv6", "unknown", "none", "two lines", "Forwarded", "long"],
)
def test_whom_it_asks_for(
    running: RunningNode,
    both: list[HTTPConnection],
    segment: str,
    fields: list[tuple[str, str]],
    client: str,
    natively: bool,
    request: pytest.FixtureRequest,
) -> None:
    for n, connection in enumerate(both):
        marker = f"{request.node.callspec.id.encode().hex()}{n:x}".ljust(32, "0")[:31] + str(n)
        # Somebody else has asked on this connection before, and asks afterwards.
        said(connection, f"/v/free/{segment}", ("X-Forwarded-For", "192.0.2.77"))
        answer = said(connection, f"/v/free/{segment}", *fields, ("traceparent", f"00-{marker}-00f067aa0ba902b7-01"))
        assert (answer.status, native(answer)) == (200, natively)
        assert logged(running, marker) == client


@pytest.mark.parametrize(
    ("claims", "fields", "status"),
    [
        ({"networks": [ipaddress.ip_network(f"{ONE}/32")]}, [("X-Forwarded-For", ONE)], 200),
        ({"networks": [ipaddress.ip_network(f"{ONE}/32")]}, [("X-Forwarded-For", OTHER)], 403),
        ({"networks": [ipaddress.ip_network(f"{ONE}/32")]}, [], 403),
        ({312: {0: {0: "https"}, 3: {1: "/v/gated/"}}}, [("X-Forwarded-Proto", "https")], 200),
        ({312: {0: {0: "https"}, 3: {1: "/v/gated/"}}}, [("X-Forwarded-Proto", "http")], 403),
        ({312: {0: {0: "https"}, 3: {1: "/v/gated/"}}}, [], 403),
        ({312: {0: {0: "http"}, 3: {1: "/v/gated/"}}}, [("X-Forwarded-Proto", "gopher")], 200),
    ],
)
def test_tokens_hold_for_whom_it_asks(
    both: list[HTTPConnection], segment: str, claims: dict[Any, Any], fields: list[tuple[str, str]], status: int
) -> None:
    token = mint(**claims) if "networks" in claims else signed(claims)
    for connection in both:
        answers = [said(connection, f"/t/{token}/v/gated/{segment}", *fields) for _ in range(2)]
        assert [(answer.status, native(answer)) for answer in answers] == [(status, status == 200)] * 2


def test_each_of_its_clients_has_a_rate_of_its_own(library: Path, segment: str, tmp_path: Path) -> None:
    limits = {"requests_per_address": 0.001, "burst_per_address": LIMIT}
    with start(library, tmp_path, limits=limits) as running, running.each_worker() as both:
        for client in (ONE, OTHER):
            statuses = [
                said(both[n % 2], f"/v/free/{segment}", ("X-Forwarded-For", client)).status for n in range(LIMIT + 8)
            ]
            assert statuses == [200] * LIMIT + [429] * 8
        # The proxy itself is not counted.
        assert {said(connection, f"/v/free/{segment}").status for connection in both * LIMIT} == {200}
        assert running.total("native_answers_total") > LIMIT
