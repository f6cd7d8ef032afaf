"""Caches in front of the edge: what needed a token is kept by none of them, what is open by all."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator

import aiohttp
import pytest
import yarl

from benchmarks.peers.ours import Ours, ours
from benchmarks.peers.process import Server, folder, free_port, stopped
from benchmarks.peers.varnish import varnish
from tests.edge.harness import Answer
from tests.media_factory import Audio, Video, make

pytestmark = [pytest.mark.needs("nginx", "varnishd")]

# Both name an object by the path behind its token, and would hand it to whoever has the path, were they allowed to.
VCL = """\
vcl 4.1;
backend edge { .host = "127.0.0.1"; .port = "%d"; }
sub vcl_hash { hash_data(regsub(regsub(req.url, "[?].*", ""), "^/t/[^/]+", "")); return (lookup); }
sub vcl_deliver { set resp.http.X-Cache = "MISS"; if (obj.hits > 0) { set resp.http.X-Cache = "HIT"; } }
"""
NGINX = """\
{user} daemon off; pid {folder}/pid; error_log {folder}/errors; events {{}}
http {{
    map $request_uri $object {{ "~^/t/[^/?]+(?<behind>/[^?]*)" $behind; "~^(?<whole>[^?]*)" $whole; }}
    access_log off;
    client_body_temp_path {folder}/body; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    proxy_temp_path {folder}/proxy;
    proxy_cache_path {folder}/cache keys_zone=objects:1m;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{origin}; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_cache objects; proxy_cache_key $object; proxy_cache_valid 200 206 1h;
            proxy_cache_lock on; add_header X-Cache $upstream_cache_status;
        }}
    }}
}}
"""


@contextlib.contextmanager
def proxy_cache(origin: int) -> Iterator[Server]:
    with folder() as own, stopped(Server("nginx", free_port(), own)) as server:
        user = "user root;" if os.geteuid() == 0 else ""
        (own / "nginx.conf").write_text(NGINX.format(user=user, folder=own, port=server.port, origin=origin))
        server.run(["nginx", "-e", own / "errors", "-c", own / "nginx.conf"], None)
        server.wait()
        yield server


CACHES: dict[str, Callable[[int], contextlib.AbstractContextManager[Server]]] = {
    "nginx proxy_cache": proxy_cache,
    "Varnish": lambda origin: varnish(origin, None, vcl=VCL, log=False),
}


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ours]:
    """Two workers, an open film and a gated one."""
    root = tmp_path_factory.mktemp("films")
    make(root / "open.mp4", Video(gop=25), Audio(), seconds=5)
    (root / "gated").mkdir()
    os.link(root / "open.mp4", root / "gated" / "film.mp4")
    (root / "gated" / "asset.toml").write_text('gated = true\n[[source]]\nfile = "film.mp4"\n')
    with ours(root, None, asset="gated", gated=False, workers=2) as started:
        yield started


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=("Accept-Encoding",)) as made:
        yield made


@pytest.fixture(params=CACHES)
def cache(request: pytest.FixtureRequest, edge: Ours) -> Iterator[Server]:
    with CACHES[request.param](edge.port) as started:
        yield started


async def ask(session: aiohttp.ClientSession, server: Server, path: str, **headers: str) -> Answer:
    target = yarl.URL(f"http://127.0.0.1:{server.port}{path}", encoded=True)
    async with session.get(target, headers=headers, allow_redirects=False) as response:
        return Answer(response.status, response.headers, await response.read())


async def objects(session: aiohttp.ClientSession, edge: Ours, prefix: str) -> list[str]:
    """A path of each kind below ``prefix``."""
    playlist = (await ask(session, edge, f"{prefix}/main.m3u8")).body.decode().splitlines()
    media = next(line for line in playlist if line.endswith("index.m3u8"))
    rendition = media.removesuffix("/index.m3u8")
    return ["main.m3u8", "main.mpd", media, f"{rendition}/init.mp4", f"{rendition}/0.m4s"]


def gives_away(answer: Answer, body: bytes) -> bool:
    """Whether any 16 bytes in a row of ``body`` are in the answer."""
    return any(body[at : at + 16] in answer.body for at in range(0, max(1, len(body) - 16), 16))


async def test_a_holder_then_a_stranger_then_the_revoked_holder(
    edge: Ours, cache: Server, session: aiohttp.ClientSession
) -> None:
    holder = secrets.token_bytes(16)
    token, other = edge.mint("gated", holder), edge.mint("other")
    names = await objects(session, edge, f"/t/{token}/v/gated")
    bodies = {}
    for name in names * 2:
        answer = await ask(session, cache, f"/t/{token}/v/gated/{name}")
        assert answer.status == 200 and answer.headers["Cache-Control"].startswith("private")
        assert answer.headers["X-Cache"] == "MISS"
        bodies[name] = answer.body
    header = {"CTA-Common-Access-Token": token}
    assert (await ask(session, cache, f"/v/gated/{names[-1]}", **header)).body == bodies[names[-1]]

    async def refused(prefix: str, status: int, **headers: str) -> None:
        for name in names:
            for asked in ({}, {"Range": "bytes=0-99"}):
                answer = await ask(session, cache, f"{prefix}/v/gated/{name}", **headers, **asked)
                assert answer.status == status and answer.headers["Cache-Control"] == "no-store"
                assert not gives_away(answer, bodies[name])

    await refused("", 401)
    await refused(f"/t/{token[:-4]}AAAA", 401)
    await refused(f"/t/{other}", 403)
    edge.admin("POST", "/revocations", {"session": holder.hex(), "exp": int(time.time()) + 86400})
    await refused(f"/t/{token}", 401)
    await refused("", 401, **header)
    # Somebody else's token is as good as before.
    assert (await ask(session, cache, f"/t/{edge.mint('gated')}/v/gated/{names[-1]}")).body == bodies[names[-1]]


async def test_what_is_open_is_kept(edge: Ours, cache: Server, session: aiohttp.ClientSession) -> None:
    names = await objects(session, edge, "/v/open")
    for name in names[2:]:
        first, second = [await ask(session, cache, f"/v/open/{name}") for _ in range(2)]
        assert first.status == second.status == 200 and first.body == second.body
        assert (first.headers["X-Cache"], second.headers["X-Cache"]) == ("MISS", "HIT")
        assert first.headers["Cache-Control"].startswith("public")
