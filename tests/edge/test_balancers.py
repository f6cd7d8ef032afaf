"""The configurations of ``config/`` for nginx and HAProxy: HTTP/2 in front, each object at one node, no token in a log."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from benchmarks.peers.certificate import Certificate
from benchmarks.peers.process import Server, folder, free_port, stopped
from tests.conftest import ROOT
from tests.edge.harness import Edge

pytestmark = [pytest.mark.needs("nginx", "haproxy", "curl", "openssl")]

TOKENS = ("2D3RhEOhAQWhBEJrMVgVowFqc3RyZWFtZ2F0ZQ", "another.token_here~")
OBJECTS = [f"/v/film/v540-0123456789abcdef/{n}.m4s" for n in range(40)]


def changed(path: Path, changes: Mapping[str, str]) -> str:
    """The configuration as it is shipped, but for the places that every site has its own of."""
    text = path.read_text()
    for shipped, here in changes.items():
        assert shipped in text
        text = text.replace(shipped, here)
    return text


@contextlib.contextmanager
def nginx(nodes: tuple[int, int], certificate: Certificate) -> Iterator[Server]:
    with folder() as own, stopped(Server("nginx", free_port(), own)) as server:
        changes = {
            "    listen 443 ssl http2;\n    listen [::]:443 ssl http2;\n": f"    listen 127.0.0.1:{server.port} ssl http2;\n",
            "127.0.0.1:8080": f"127.0.0.1:{nodes[0]}",
            "127.0.0.1:8081": f"127.0.0.1:{nodes[1]}",
            "/etc/ssl/streamgate/cert.pem": str(certificate.chain),
            "/etc/ssl/streamgate/key.pem": str(certificate.key),
            "/var/log/nginx/streamgate.log streamgate buffer=64k flush=1s": f"{own}/stderr streamgate",
        }
        (own / "streamgate.conf").write_text(changed(ROOT / "config/nginx/streamgate.conf", changes))
        user = "user root;" if os.geteuid() == 0 else ""
        places = " ".join(
            f"{kind}_temp_path {own}/{kind};" for kind in ("client_body", "fastcgi", "uwsgi", "scgi", "proxy")
        )
        main = f"{user} daemon off; pid {own}/pid; events {{}} http {{ {places} include {own}/streamgate.conf; }}"
        (own / "nginx.conf").write_text(main)
        server.run(["nginx", "-e", own / "errors", "-c", own / "nginx.conf"], None)
        server.wait()
        yield server


@contextlib.contextmanager
def haproxy(nodes: tuple[int, int], certificate: Certificate) -> Iterator[Server]:
    with folder() as own, stopped(Server("HAProxy", free_port(), own)) as server:
        changes = {
            "maxconn 20000": "maxconn 200",
            "bind :443": f"bind 127.0.0.1:{server.port}",
            "/etc/haproxy/streamgate.pem": str(certificate.both),
            "127.0.0.1:8080": f"127.0.0.1:{nodes[0]}",
            "127.0.0.1:8081": f"127.0.0.1:{nodes[1]}",
        }
        (own / "haproxy.cfg").write_text(changed(ROOT / "config/haproxy/haproxy.cfg", changes))
        server.run(["haproxy", "-db", "-f", own / "haproxy.cfg"], None)
        server.wait()
        yield server


BALANCERS = {"nginx": nginx, "haproxy": haproxy}


@dataclass
class Node:
    """A server that notes what it is asked for."""

    port: int = 0
    seen: list[tuple[str, str, str]] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Node]:
        async def answer(request: web.BaseRequest) -> web.Response:
            if request.path != "/health/ready":
                version = f"{request.version.major}.{request.version.minor}"
                self.seen.append((request.raw_path, version, request.headers.get("X-Forwarded-For", "")))
            return web.Response(body=b"segment")

        runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()


async def curl(port: int, *paths: str, to: str = "/dev/null") -> list[str]:
    """Protocol version and status of each path, asked for over HTTP/2 on TLS."""
    command = ["curl", "--http2", "--insecure", "--silent", "--write-out", "%{http_version} %{http_code}\n"]
    urls = [word for path in paths for word in ("--output", to, f"https://127.0.0.1:{port}{path}")]
    done = await asyncio.create_subprocess_exec(*command, *urls, stdout=asyncio.subprocess.PIPE)
    told, _ = await done.communicate()
    assert done.returncode == 0
    return told.decode().splitlines()


async def logged(server: Server, times: int) -> str:
    """What the balancer has logged, once it holds so many lines of ours."""
    async with asyncio.timeout(10):
        while (told := server.said()).count("/v/film/") < times:
            await asyncio.sleep(0.01)
    return told


@pytest.mark.parametrize("balancer", BALANCERS)
async def test_http2_in_front_and_each_object_at_one_node(balancer: str, certificate: Certificate) -> None:
    asked = [f"{prefix}{path}?CMCD=br%3D3" for prefix in ("", *(f"/t/{t}" for t in TOKENS)) for path in OBJECTS]
    async with Node().running() as first, Node().running() as second:
        with BALANCERS[balancer]((first.port, second.port), certificate) as server:
            assert await curl(server.port, *asked) == ["2 200"] * len(asked)
            told = await logged(server, len(asked))
    assert sorted(path for path, _, _ in first.seen + second.seen) == sorted(asked)
    assert {(version, whom) for _, version, whom in first.seen + second.seen} == {("1.1", "127.0.0.1")}
    kept = [
        {f"/v/{path.partition('/v/')[2].partition('?')[0]}" for path, _, _ in node.seen} for node in (first, second)
    ]
    assert not kept[0] & kept[1] and kept[0] | kept[1] == set(OBJECTS)
    assert min(map(len, kept)) >= 5
    assert OBJECTS[0] in told and not any(token in told for token in TOKENS) and "CMCD" not in told


@pytest.mark.parametrize("balancer", BALANCERS)
async def test_a_node_that_has_gone_is_passed_over(balancer: str, certificate: Certificate) -> None:
    async with Node().running() as first:
        with BALANCERS[balancer]((first.port, free_port()), certificate) as server:
            assert await curl(server.port, *OBJECTS) == ["2 200"] * len(OBJECTS)
    assert sorted(path for path, _, _ in first.seen) == sorted(OBJECTS)


@pytest.mark.parametrize("balancer", BALANCERS)
async def test_the_edge_behind_it(balancer: str, certificate: Certificate, edge: Edge, tmp_path: Path) -> None:
    playlist = (await edge.ask("/v/film/main.m3u8")).body.decode().split()
    media = next(line for line in playlist if line.endswith("index.m3u8"))
    paths = [f"/v/film/{name}" for name in ("main.m3u8", "main.mpd", media, media.replace("index.m3u8", "0.m4s"))]
    with BALANCERS[balancer]((edge.port, edge.port), certificate) as server:
        for path in paths:
            assert await curl(server.port, path, to=str(tmp_path / "got")) == ["2 200"]
            assert (tmp_path / "got").read_bytes() == (await edge.ask(path)).body
