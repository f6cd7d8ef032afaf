"""The native path of a whole node: tokens as they are remembered and revoked, limits, TLS, and who answered."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from edge import fast
from edge.app import make_app
from edge.connections import Connections
from edge.entries import IMMUTABLE, Entry
from edge.node import Node, make_node
from edge.routes import ROUTES
from edge.tiers.tier import Terms
from streamgate.access import tokens
from streamgate.access.keys import SharedKey
from streamgate.core.health import Health
from streamgate.core.telemetry import LATENCIES, METRICS, Telemetry
from streamgate.native import hotpath
from streamgate.native.accesslog import AccessLog
from streamgate.native.cat import Verifier
from streamgate.native.limiter import Limiter, room
from tests.edge.harness import Folder, settings
from tests.native.hot import answer, get, until

KEY = SharedKey(b"site-1", bytes(range(32)), "streamgate", ("local",), ("iss", "exp", "cti", "aud"))
NAME = "v540-0123456789abcdef"
LARGE = os.urandom(3 << 20)


@dataclass
class Started:
    """A node with objects in memory: /v/film/NAME/{0,1}.m4s, small and large, gated."""

    node: Node
    verifier: Verifier
    port: int
    tls: int
    connections: Connections
    logged: list[bytes]

    @property
    def natively(self) -> int:
        return self.node.telemetry.block(hotpath.COUNTERS)[hotpath.COUNTERS.index("native_answers")]

    def counted(self, name: str) -> int:
        return self.node.telemetry.block(hotpath.COUNTERS)[hotpath.COUNTERS.index(name)]


def mint(**more: Any) -> str:
    return tokens.mint(KEY, **{"asset": "film", "session": bytes(16), "expires": int(time.time()) + 1000, **more})


def path(token: str, name: str = "0.m4s") -> str:
    return f"/t/{token}/v/film/{NAME}/{name}"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tls") / "both.pem"
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        ["openssl", *options.split(), "-keyout", made, "-out", f"{made}.cert"], check=True, capture_output=True
    )
    made.write_bytes(made.read_bytes() + Path(f"{made}.cert").read_bytes())
    return made


@pytest.fixture
async def started(folder: Path, certificate: Path, request: pytest.FixtureRequest) -> AsyncIterator[Started]:
    options = dict(getattr(request, "param", {}))
    verifier = Verifier([KEY.verifying()])
    chosen = settings(memory_object=4 << 20, cache_bytes=1 << 28, require_token=True, **options.pop("edge", {}))
    node = make_node(chosen, Folder(folder), await asyncio.to_thread(Telemetry), Health(), verifier)
    runner = web.AppRunner(make_app(node), access_log=None)
    await runner.setup()
    assert runner.server is not None
    logged: list[bytes] = []
    limiters = {name: Limiter(bytearray(room(64)), 0.001, most) for name, most in options.items()}
    connections = Connections(node, runner.server, log=AccessLog(logged.append), **limiters)
    for name, body in (("0.m4s", b"small" * 100), ("1.m4s", LARGE)):
        key = f"/v/film/{NAME}/{name}"
        assert node.tiers.memory.put(
            key, Entry("video/mp4", f"{NAME}/{name}", IMMUTABLE, body), Terms("private", "segment")
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    plain = await loop.create_server(connections, "127.0.0.1", 0)  # type: ignore[arg-type]
    encrypted = await loop.create_server(connections, "127.0.0.1", 0, ssl=context)  # type: ignore[arg-type]
    node.health.state = "ready"
    ports = [server.sockets[0].getsockname()[1] for server in (plain, encrypted)]
    yield Started(node, verifier, ports[0], ports[1], connections, logged)
    plain.close()
    encrypted.close()
    await connections.drain(5)
    await runner.cleanup()
    node.close()


def test_names_are_the_nodes() -> None:
    assert {route.name for route in ROUTES} == set(hotpath.ROUTES)
    assert hotpath.LATENCIES == LATENCIES
    labels = {metric.name: len(metric.labels) for metric in METRICS}
    for name in hotpath.COUNTERS:
        first, *values = name.split("/")
        if values and not first.endswith("_ns"):
            assert labels[first] + first.endswith("_seconds") == len(values), name


async def test_a_connection_remembers_its_token(started: Started) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", started.port)
    one, other = mint(), mint(session=bytes(range(16)))
    for token in (one, one, one, other, other, one):
        writer.write(get(path(token)))
        assert (await answer(reader))[0] == 200
    writer.write(get(f"/v/film/{NAME}/0.m4s", f"CTA-Common-Access-Token: {one}"))
    assert (await answer(reader))[0] == 200
    assert started.natively == 7
    assert started.counted("native_tokens_read") == 3 and started.counted("native_tokens_remembered") == 4
    # What is remembered is asked again of each request: the method, the path, the network, the time.
    writer.write(get(path(one).replace("film", "ladder")))
    assert (await answer(reader))[0] == 403
    limited = mint(methods=["HEAD"])
    writer.write(get(path(limited), method="HEAD"))
    assert (await answer(reader, "HEAD"))[0] == 200
    writer.write(get(path(limited)))
    assert (await answer(reader))[0] == 403
    writer.close()


async def test_what_is_revoked_is_refused_at_once(started: Started) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", started.port)

    async def status(token: str) -> int:
        writer.write(get(path(token)))
        return (await answer(reader))[0]

    one, other = mint(), mint(session=bytes(range(16)))
    assert [await status(one), await status(other)] == [200, 200]
    started.verifier.revoke_session(bytes(16), int(time.time()) + 5000)
    assert [await status(one), await status(other), await status(one)] == [401, 200, 401]
    started.verifier.revoke_kid(b"site-1", int(time.time()) + 5000)
    assert await status(other) == 401
    started.verifier.restore_kid(b"site-1")
    assert await status(other) == 200
    # A key that goes takes its tokens along; one that stays costs one more reading.
    started.verifier.configure([KEY.verifying()])
    assert await status(other) == 200
    started.verifier.configure([])
    assert await status(other) == 401
    writer.close()


async def test_without_a_token_nothing_is_looked_up(started: Started) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", started.port)
    answers = []
    for asked in (f"/v/film/{NAME}/0.m4s", f"/v/film/{NAME}/99.m4s", "/v/nothing/main.m3u8"):
        writer.write(get(asked))
        status, _, body = await answer(reader)
        answers.append((status, body))
    assert {status for status, _ in answers} == {401} and len({body for _, body in answers}) == 1
    assert started.natively == 0 and started.node.tiers.memory.index.hits == 0
    writer.close()


@pytest.mark.parametrize("started", [{"by_address": 3}, {"by_token": 3}], indirect=True)
async def test_limits_hold_for_fast_answers(started: Started) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", started.port)
    for n in range(6):
        writer.write(get(path(mint())))
        await answer(reader)
        assert started.natively == min(n + 1, 3)
    writer.close()


async def test_tls_never_sees_its_socket_written_to(started: Started) -> None:
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", started.tls, ssl=trust)
    await until(lambda: started.connections.factory.connections)
    [connection] = started.connections.factory.connections
    assert not connection.direct
    token = mint()
    writer.write(get(path(token)) + get(path(token, "1.m4s")) + get(path(token), "Range: bytes=0-4"))
    # A byte of plaintext in between would end the connection with an alert.
    assert [(await answer(reader))[2] for _ in range(3)] == [b"small" * 100, LARGE, b"small"]
    writer.write(get("/health/live") + get(path(token, "1.m4s")))
    assert (await answer(reader))[0] == 200
    assert (await answer(reader))[2] == LARGE
    assert started.natively >= 3
    writer.close()


async def test_only_what_encrypts_nothing_is_plain(started: Started) -> None:
    from uvloop import loop as uvloop_loop

    kinds = {name for name in dir(uvloop_loop) if name.endswith("Transport")} | {"_SSLProtocolTransport"}
    assert kinds - {kind.__name__ for kind in fast.PLAIN} >= {"UDPTransport", "_SSLProtocolTransport"}
    _, writer = await asyncio.open_connection("127.0.0.1", started.port)
    await until(lambda: started.connections.factory.connections)
    [connection] = started.connections.factory.connections
    assert connection.direct
    writer.close()


async def test_slow_readers_over_tls_hold_a_piece_each(started: Started) -> None:
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    token, readers = mint(), []
    for _ in range(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", started.tls, ssl=trust, limit=1024)
        writer.write(get(path(token, "1.m4s")))
        await reader.readuntil(b"\r\n\r\n")
        readers.append((reader, writer))
    for reader, writer in readers:
        assert await reader.readexactly(len(LARGE)) == LARGE
        writer.close()
    assert started.natively == 10


async def test_the_log_shows_no_token(started: Started) -> None:
    token = mint()
    reader, writer = await asyncio.open_connection("127.0.0.1", started.port)
    writer.write(get(path(token), f"Referer: http://edge{path(token)}", "Connection: close"))
    await reader.read()
    writer.close()
    await until(lambda: started.logged)
    line = b"".join(started.logged)
    assert token[:20].encode() not in line and b'"path":"/t/~00000000/v/film/' in line and b'"native":true' in line
    exposition = (await asyncio.to_thread(started.node.telemetry.exposition, ""))[0]
    assert b'streamgate_requests_total{route="segment",status="200"} 1.0' in exposition
    assert b'streamgate_request_seconds_count{route="segment"} 1.0' in exposition


async def test_heads_differ_by_origin_where_origins_are_listed(folder: Path) -> None:
    from tests.edge.harness import running

    async with running(Folder(folder), settings(cors_origins=("https://player.example",), revalidate=60)) as edge:
        await edge.ask("/v/film/main.m3u8")
        before = edge.node.telemetry.block(hotpath.COUNTERS)[hotpath.COUNTERS.index("native_answers")]
        answers = [
            await edge.ask("/v/film/main.m3u8", headers) for headers in (None, {"Origin": "https://player.example"})
        ]
        assert [answer.headers.get("Access-Control-Allow-Origin") for answer in answers] == [
            None,
            "https://player.example",
        ]
        assert {answer.headers["Vary"] for answer in answers} == {"Accept-Encoding, Origin"}
        assert edge.node.telemetry.block(hotpath.COUNTERS)[hotpath.COUNTERS.index("native_answers")] == before + 1
