"""HTTP around the media: ranges, conditions, codings, methods, cross-origin rules, errors."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard
from aiohttp import web

from edge.phases import PHASES, deliver
from streamgate.errors import StreamGateError
from streamgate.storage.assets import discover, open_asset
from tests.edge.harness import Edge, Folder, running, settings

MAIN = "/v/film/main.m3u8"
EXPOSED = {"Content-Length", "Content-Range", "Date", "ETag", "Age", "Cache-Status", "Server-Timing"}


@pytest.fixture(scope="session")
def segment(folder: Path) -> str:
    """The path of a segment."""
    asset = open_asset(next(ref for ref in discover(folder) if ref.id == "film"))
    return f"/v/film/{asset.presentation.video[0].name}/1.m4s"


async def test_ranges(edge: Edge, segment: str) -> None:
    whole = await edge.ask(segment)
    size = len(whole.body)
    for header, first, end in (
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        (f"bytes=100-{size + 5}", 100, size),
        ("bytes=500-", 500, size),
        ("bytes=-7", size - 7, size),
    ):
        part = await edge.ask(segment, {"Range": header})
        assert (part.status, part.body) == (206, whole.body[first:end])
        assert part.headers["Content-Range"] == f"bytes {first}-{end - 1}/{size}"
        assert part.headers["ETag"] == whole.headers["ETag"]
        assert part.headers["Cache-Control"] == whole.headers["Cache-Control"]
    for header in (f"bytes={size}-", "bytes=-0"):
        answer = await edge.ask(segment, {"Range": header})
        assert (answer.status, answer.code) == (416, "range_not_satisfiable")
        assert answer.headers["Content-Range"] == f"bytes */{size}"
    for header in ("bytes=0-1,5-6", "bytes=6-5", "lines=0-1", "bytes=x"):
        answer = await edge.ask(segment, {"Range": header})
        assert (answer.status, answer.body) == (200, whole.body)
    head = await edge.ask(segment, {"Range": "bytes=0-0"}, method="HEAD")
    assert (head.status, head.headers["Content-Length"]) == (200, str(size))


async def test_if_range(edge: Edge, segment: str) -> None:
    whole = await edge.ask(segment)
    for condition, status in (
        (whole.headers["ETag"], 206),
        ('"other"', 200),
        (f"W/{whole.headers['ETag']}", 200),
        (whole.headers["Date"], 200),
    ):
        answer = await edge.ask(segment, {"Range": "bytes=0-9", "If-Range": condition})
        assert (answer.status, answer.body) == (status, whole.body[:10] if status == 206 else whole.body)
    beyond = await edge.ask(segment, {"Range": "bytes=99999999-", "If-Range": '"other"'})
    assert beyond.status == 200


async def test_ranges_of_texts_are_of_the_identity_coding(edge: Edge) -> None:
    whole = await edge.ask(MAIN)
    part = await edge.ask(MAIN, {"Range": "bytes=0-6", "Accept-Encoding": "gzip, br"})
    assert (part.status, part.body) == (206, b"#EXTM3U")
    assert "Content-Encoding" not in part.headers
    assert part.headers["ETag"] == whole.headers["ETag"]
    assert part.headers["Vary"] == "Accept-Encoding"
    coded = await edge.ask("/v/film/main.mpd", {"Accept-Encoding": "br"})
    stale = await edge.ask("/v/film/main.mpd", {"Range": "bytes=0-6", "If-Range": coded.headers["ETag"]})
    assert stale.status == 200


async def test_conditions(edge: Edge, segment: str) -> None:
    for path in (MAIN, segment):
        whole = await edge.ask(path)
        etag = whole.headers["ETag"]
        for method in ("GET", "HEAD"):
            answer = await edge.ask(path, {"If-None-Match": f'"x", W/{etag}'}, method=method)
            assert (answer.status, answer.body) == (304, b"")
            assert answer.headers["ETag"] == etag
            assert answer.headers["Cache-Control"] == whole.headers["Cache-Control"]
            assert answer.headers.get("Vary") == whole.headers.get("Vary")
            assert "Content-Type" not in answer.headers
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert (await edge.ask(path, {"If-None-Match": '"x"'})).status == 200
        assert (await edge.ask(path, {"If-Match": etag})).status == 200
        answer = await edge.ask(path, {"If-Match": '"x"'})
        assert (answer.status, answer.code) == (412, "precondition_failed")
        # Conditions come before ranges.
        assert (await edge.ask(path, {"If-None-Match": etag, "Range": "bytes=0-1"})).status == 304


DECODERS = {
    "gzip": gzip.decompress,
    "br": brotli.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompress(data),
}


async def test_codings(edge: Edge, segment: str) -> None:
    page = await edge.ask("/v/ladder/main.m3u8")
    media = segment.rpartition("/")[0] + "/index.m3u8"
    for path in ("/v/ladder/main.m3u8", "/v/ladder/main.mpd", media, "/metrics"):
        plain = await edge.ask(path)
        assert "Content-Encoding" not in plain.headers
        assert plain.headers["Vary"] == "Accept-Encoding"
        if len(plain.body) < edge.node.settings.edge.compress_min:
            continue
        tags = {plain.headers["ETag"]}
        for coding, decode in DECODERS.items():
            for _ in range(2):
                coded = await edge.ask(path, {"Accept-Encoding": f"{coding}, identity;q=0.5"})
                assert coded.headers["Content-Encoding"] == coding
                assert coded.headers["Vary"] == "Accept-Encoding"
                assert "Accept-Ranges" not in coded.headers
                if path != "/metrics":
                    assert decode(coded.body) == plain.body
            tags.add(coded.headers["ETag"])
        assert len(tags) == 4
    tag = page.headers["ETag"]
    coded = await edge.ask("/v/ladder/main.m3u8", {"Accept-Encoding": "br", "If-None-Match": tag})
    assert coded.status == 200
    again = await edge.ask("/v/ladder/main.m3u8", {"Accept-Encoding": "br", "If-None-Match": coded.headers["ETag"]})
    assert (again.status, again.headers["ETag"]) == (304, coded.headers["ETag"])


async def test_segments_are_never_compressed(edge: Edge, segment: str) -> None:
    answer = await edge.ask(segment, {"Accept-Encoding": "gzip, br, zstd"})
    assert "Content-Encoding" not in answer.headers and "Vary" not in answer.headers


async def test_compressed_forms_are_kept_within_the_memory(folder: Path) -> None:
    async with running(Folder(folder), settings(cache_bytes=0)) as edge:
        answers = [await edge.ask("/v/ladder/main.mpd", {"Accept-Encoding": "br"}) for _ in range(2)]
        assert answers[0].body == answers[1].body
        assert edge.node.tiers.memory.index.bytes == 0
    async with running(Folder(folder)) as edge:
        for _ in range(3):
            await edge.ask("/v/ladder/main.mpd", {"Accept-Encoding": "br"})
        assert len(edge.node.tiers.memory.index) == 2


@pytest.mark.parametrize("path", [MAIN, "/v/none/main.m3u8", "/v/../x", "/", "/health/live", "/assets.json"])
async def test_every_answer_can_be_read_by_any_page(edge: Edge, path: str) -> None:
    for headers in ({}, {"Origin": "https://player.example"}):
        answer = await edge.ask(path, headers)
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert EXPOSED <= set(answer.headers["Access-Control-Expose-Headers"].split(", "))
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Server"] == "StreamGate"
        assert "Origin" not in answer.headers.get("Vary", "")


async def test_listed_origins(folder: Path) -> None:
    origin = "https://player.example"
    for origins, stranger in (((origin,), None), ((origin, "*"), "*")):
        async with running(Folder(folder), settings(cors_origins=origins)) as edge:
            for path in (MAIN, "/v/none/main.m3u8"):
                known = await edge.ask(path, {"Origin": origin})
                assert known.headers["Access-Control-Allow-Origin"] == origin
                assert known.headers["Access-Control-Allow-Credentials"] == "true"
                assert "Origin" in known.headers["Vary"]
                for headers in ({"Origin": "https://other.example"}, {"Origin": "null"}, {}):
                    other = await edge.ask(path, headers)
                    assert other.headers.get("Access-Control-Allow-Origin") == stranger
                    assert "Access-Control-Allow-Credentials" not in other.headers
                    assert "Origin" in other.headers["Vary"]


async def test_preflight(edge: Edge, segment: str) -> None:
    asked = {
        "Origin": "https://a.example",
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "range",
    }
    for path in (segment, MAIN, "/v/none/main.m3u8"):
        answer = await edge.ask(path, asked, method="OPTIONS")
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert int(answer.headers["Access-Control-Max-Age"]) > 0
        allowed = {name.lower() for name in answer.headers["Access-Control-Allow-Headers"].split(", ")}
        assert {"range", "if-range", "if-none-match", "if-match", "cta-common-access-token", "cmcd-session"} <= allowed
        assert "GET" in answer.headers["Access-Control-Allow-Methods"]
        assert "Content-Type" not in answer.headers and "Content-Length" not in answer.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"])
async def test_other_methods(edge: Edge, method: str) -> None:
    for path in (MAIN, "/", "/other"):
        answer = await edge.ask(path, method=method)
        assert (answer.status, answer.code) == (405, "method_not_allowed")
        assert answer.headers["Allow"] == "GET, HEAD, OPTIONS"
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


async def test_connect(edge: Edge) -> None:
    answer = await edge.raw(b"CONNECT other.example:443 HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n")
    assert (answer.status, answer.code) == (405, "method_not_allowed")


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "request_malformed"),
        (b"GET\r\n\r\n", 400, "request_malformed"),
        (b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", 400, "request_malformed"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nBroken\r\n\r\n", 400, "request_malformed"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400, "request_malformed"),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "request_malformed",
        ),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 400, "request_malformed"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: wonders\r\nConnection: close\r\n\r\n", 417, "expectation_failed"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431, "head_too_large"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431, "head_too_large"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 200 + b"\r\n", 431, "head_too_large"),
        (b"GET /v/film\\x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 400, "path_malformed"),
        (b"GET /v/../x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 400, "path_malformed"),
        (b"GET //x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 400, "path_malformed"),
        (b"GET http://a/v/film%2f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 400, "path_malformed"),
    ],
)
async def test_what_no_client_should_send(edge: Edge, request_bytes: bytes, status: int, code: str) -> None:
    answer = await edge.raw(request_bytes)
    assert (answer.status, answer.code) == (status, code)
    assert answer.json()["status"] == status
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert (await edge.ask("/health/live")).status == 200


async def test_a_body_that_never_comes(edge: Edge) -> None:
    answer = await edge.raw(b"GET /health/live HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n")
    assert (answer.status, answer.json()) == (200, {"status": "live"})


async def test_absolute_form_and_http_1_0(edge: Edge) -> None:
    plain = await edge.ask(MAIN)
    close = b"\r\nConnection: close\r\n\r\n"
    absolute = await edge.raw(b"GET http://media.example" + MAIN.encode() + b" HTTP/1.1\r\nHost: media.example" + close)
    assert (absolute.status, absolute.body) == (200, plain.body)
    old = await edge.raw(b"GET " + MAIN.encode() + b" HTTP/1.0\r\n\r\n")
    assert (old.status, old.body) == (200, plain.body)


async def test_problem_details(edge: Edge) -> None:
    answer = await edge.ask("/v/film/none")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "code": "not_found",
        "detail": "there is nothing at this path",
        "retryable": False,
    }


async def test_an_unexpected_failure_tells_nothing(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("edge.media.build", fail)
    answer = await edge.ask(MAIN)
    assert (answer.status, answer.code) == (500, "internal")
    assert b"secret" not in answer.body
    assert (await edge.ask("/health/live")).status == 200


def timed(field: str) -> list[str]:
    """The names of a Server-Timing field's metrics, each of which has a duration in ms (W3C Server Timing section 3)."""
    parts = [re.fullmatch(r"([a-z]+);dur=([0-9]+\.[0-9]{2,3})", part) for part in field.split(", ")]
    assert all(parts), field
    return [part[1] for part in parts if part and 0 <= float(part[2]) < 60_000]


async def test_server_timing_names_the_phases(folder: Path) -> None:
    before = [phase.__name__ for phase in PHASES[: PHASES.index(deliver)]]
    assert before == ["parse", "authorize", "key", "lookup", "resolve", "store"]
    async with running(Folder(folder), settings(revalidate=60)) as edge:
        for path, expected in (
            (MAIN, before),
            (MAIN, ["native"]),
            (f"/t/x{MAIN}", ["native"]),
            (f"{MAIN}?a=1", ["native"]),
            ("/v/none/main.m3u8", ["parse", "authorize"]),
            ("/t/x/v/none/main.m3u8", ["parse", "authorize"]),
            ("/v/../x", ["parse"]),
            ("/", ["parse"]),
            ("/health/live", ["parse"]),
            ("/assets.json", ["parse"]),
        ):
            # On a connection of its own: behind what the other way answers, the native one waits until that is all done.
            answer = await edge.ask(path, {"Connection": "close"})
            assert timed(answer.headers["Server-Timing"]) == expected, path


async def test_a_head_that_takes_too_long(folder: Path) -> None:
    async with running(Folder(folder), settings(server={"head_timeout": 0.1})) as edge:
        answer = await edge.raw(b"GET / HTTP/1.1\r\nHost:")
        assert (answer.status, answer.code) == (408, "head_timeout")
        assert (answer.headers["Access-Control-Allow-Origin"], answer.headers["X-Content-Type-Options"]) == (
            "*",
            "nosniff",
        )
        async with edge.connect() as (reader, _):
            assert await reader.read() == b""
        # A connection that is being used is left alone, between requests too.
        async with edge.connect() as (reader, writer):
            loop = asyncio.get_running_loop()
            end = loop.time() + 0.3
            while loop.time() < end:
                writer.write(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
                assert b"200 OK" in await reader.readuntil(b'live"}')


async def test_keep_alive_ends(folder: Path) -> None:
    async with running(Folder(folder), settings(server={"keepalive_timeout": 0.1})) as edge:
        async with edge.connect() as (reader, writer):
            writer.write(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"200 OK" in await reader.read()


async def test_too_many_connections(folder: Path) -> None:
    async with running(Folder(folder), settings(server={"max_connections": 2})) as edge:
        async with edge.connect() as first, edge.connect() as second:
            for reader, writer in (first, second):
                writer.write(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
                await reader.readuntil(b'live"}')
            refused = await edge.raw(b"")
            assert (refused.status, refused.code) == (503, "overloaded")
            assert refused.headers["Retry-After"] == "2"
            assert (refused.headers["Access-Control-Allow-Origin"], refused.headers["Connection"]) == ("*", "close")
            assert edge.node.telemetry.value("connections_refused") == 1
            assert edge.node.telemetry.value("connections") == 2


@pytest.fixture
async def mounted(folder: Path) -> AsyncIterator[Edge]:
    async def hello(request: web.Request) -> web.Response:
        return web.json_response({"hello": request.match_info["name"]})

    async def fail(_: web.Request) -> web.Response:
        raise StreamGateError("stopping", "not now")

    async def move(_: web.Request) -> web.Response:
        raise web.HTTPFound("/api/hello/you")

    async def crash(_: web.Request) -> web.Response:
        raise ValueError("secret")

    api = web.Application()
    api.router.add_post("/hello/{name}", hello)
    api.router.add_get("/fail", fail)
    api.router.add_get("/move", move)
    api.router.add_get("/crash", crash)
    async with running(Folder(folder), mounts={"/api": api}) as edge:
        yield edge


async def test_mounted_applications(mounted: Edge) -> None:
    answer = await mounted.ask("/api/hello/you", method="POST")
    assert (answer.status, answer.json()) == (200, {"hello": "you"})
    # Cross-origin rules of an application are its own.
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    for path, method, status, code in (
        ("/api/hello/you", "GET", 405, "method_not_allowed"),
        ("/api/none", "GET", 404, "not_found"),
        ("/api/fail", "GET", 503, "stopping"),
        ("/api/crash", "GET", 500, "internal"),
        ("/api/../hello", "GET", 400, "path_malformed"),
        ("/api//hello", "POST", 400, "path_malformed"),
        ("/apis", "POST", 405, "method_not_allowed"),
        ("/%61pi/hello/you", "POST", 405, "method_not_allowed"),
    ):
        answer = await mounted.ask(path, method=method)
        assert (answer.status, answer.code) == (status, code), path
    refused = await mounted.ask("/api/hello/you")
    assert refused.headers["Allow"] == "POST"
    moved = await mounted.ask("/api/move")
    assert (moved.status, moved.headers["Location"]) == (302, "/api/hello/you")
    assert moved.headers["Cache-Control"] == "no-store"
    assert (await mounted.ask(MAIN)).status == 200
    assert mounted.node.telemetry.value("requests", route="mounted", status="200") == 1


@pytest.mark.parametrize("path", ["/metrics", "/v/film/main.m3u8", "/nosuch", "/v/film/nosuch"])
async def test_who_says_no_more_is_answered(edge: Edge, path: str) -> None:
    for _ in range(2):  # what the first has put into memory, too
        async with edge.connect() as (reader, writer):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            writer.write_eof()
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 ")
            assert f"Content-Length: {len(body)}".encode() in head and body
