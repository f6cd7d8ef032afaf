"""What is below /api: passed on to the auth role with what we know of the client, and back as it is, all within bounds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yarl
from multidict import CIMultiDict

from edge.api import _Forwarder
from streamgate.core.settings import ApiSettings, ServerSettings
from streamgate.errors import StreamGateError
from tests.edge.fake_auth import FakeAuth
from tests.edge.harness import Edge, Folder, running, settings

CALL = "/api/v1/playback/film"


@pytest.fixture
async def auth(tmp_path: Path) -> AsyncIterator[FakeAuth]:
    made = FakeAuth()
    async with made.listening(tmp_path / "auth.sock"):
        yield made


def serving(folder: Path, tmp_path: Path, server: dict[str, Any] | None = None, **api: Any) -> Any:
    given = settings(server).model_copy(update={"api": ApiSettings(**api)})
    return running(Folder(folder), given, auth=str(tmp_path / "auth.sock"))


async def post(edge: Edge, body: Any = b"{}", path: str = CALL, **headers: str) -> tuple[int, CIMultiDict[str], bytes]:
    async with edge.session.post(
        yarl.URL(edge.url + path, encoded=True), data=body, headers=headers, allow_redirects=False
    ) as answer:
        return answer.status, CIMultiDict(answer.headers), await answer.read()


async def test_passed_on(folder: Path, tmp_path: Path, auth: FakeAuth) -> None:
    async with serving(folder, tmp_path) as edge:
        fields = {
            "Authorization": "Bearer x",
            "Cookie": "a=b",
            "Content-Type": "application/json",
            "X-StreamGate-Client": "10.0.0.1",
            "x-streamgate-admin": "yes",
            "TE": "trailers",
            "X-Hop": "1",
            "Connection": "keep-alive, X-Hop",
        }
        status, headers, body = await post(edge, b'{"a": 1}', f"{CALL}?x=1&y=%2F", **fields)
        assert (status, body) == (201, b"made")
        assert headers.getall("Set-Cookie") == ["one=1; Path=/", "two=2; Path=/"]
        assert headers["Cache-Control"] == "no-store"
        assert not {"X-StreamGate-Secret", "Keep-Alive"} & headers.keys()
        assert headers.getall("Server") == ["StreamGate"]
        asked, given = auth.requests[0]
        assert (asked.method, asked.raw_path, given) == ("POST", f"{CALL}?x=1&y=%2F", b'{"a": 1}')
        assert {name: asked.headers[name] for name in ("Authorization", "Cookie", "Content-Type")} == {
            "Authorization": "Bearer x",
            "Cookie": "a=b",
            "Content-Type": "application/json",
        }
        ours = {name: asked.headers.getall(name) for name in asked.headers if name.lower().startswith("x-streamgate")}
        host = [edge.url.removeprefix("http://")]
        assert ours == {
            "X-StreamGate-Client": ["127.0.0.1"],
            "X-StreamGate-Scheme": ["http"],
            "X-StreamGate-Host": host,
        }
        assert asked.headers.getall("Host") == host
        assert not {"TE", "X-Hop"} & asked.headers.keys()


async def test_what_a_trusted_proxy_says(folder: Path, tmp_path: Path, auth: FakeAuth) -> None:
    async with serving(folder, tmp_path, {"trusted_proxies": ("127.0.0.1",)}) as edge:
        assert isinstance(edge.node.settings.server, ServerSettings)
        await post(edge, b"{}", **{"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"})
        asked, _ = auth.requests[0]
        assert (asked.headers["X-StreamGate-Client"], asked.headers["X-StreamGate-Scheme"]) == ("203.0.113.9", "https")


async def test_the_connection_goes_on(folder: Path, tmp_path: Path, auth: FakeAuth) -> None:
    """A request with a body that was read whole; and what is no path is nobody's."""
    async with serving(folder, tmp_path) as edge:
        assert [(await post(edge))[0] for _ in range(3)] == [201] * 3
        assert (await edge.ask("/api/v1/../x")).code == "path_malformed"
        assert (await edge.ask("/v/film/main.m3u8")).status == 200
        assert len(auth.requests) == 3


@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_are_bounded(folder: Path, tmp_path: Path, auth: FakeAuth, chunked: bool) -> None:
    async with serving(folder, tmp_path, max_body=1000) as edge:
        assert (await post(edge, b"x" * 1000))[0] == 201

        async def many() -> AsyncIterator[bytes]:
            yield b"x" * 1001

        body: Any = many() if chunked else b"x" * 1001
        status, _, text = await post(edge, body)
        assert (status, b"body_too_large" in text) == (413, True)
        assert len(auth.requests) == 1


async def test_time_and_number_are_bounded(folder: Path, tmp_path: Path, auth: FakeAuth) -> None:
    async with serving(folder, tmp_path, timeout=0.3, most=2) as edge:
        auth.awake.clear()
        waiting = [asyncio.create_task(post(edge)) for _ in range(2)]
        while len(auth.requests) < 2:
            await asyncio.sleep(0.01)
        status, headers, text = await post(edge)
        assert (status, b'"overloaded"' in text) == (503, True)
        for status, headers, text in await asyncio.gather(*waiting):
            assert (status, b"auth_unavailable" in text, "Retry-After" in headers) == (503, True, True)
            assert headers["Content-Type"] == "application/problem+json"
        auth.awake.set()
        assert (await post(edge))[0] == 201


async def test_nobody_there(folder: Path, tmp_path: Path) -> None:
    async with serving(folder, tmp_path) as edge:
        status, headers, text = await post(edge)
        assert (status, b"auth_unavailable" in text, "Retry-After" in headers) == (503, True, True)


async def test_pages_elsewhere(folder: Path, tmp_path: Path, auth: FakeAuth) -> None:
    """CORS, errors included; a preflight is answered here."""
    async with serving(folder, tmp_path, max_body=256) as edge:
        answer = await edge.ask(CALL, {"Origin": "https://a.example"}, "OPTIONS")
        assert (answer.status, auth.requests) == (204, [])
        assert answer.headers["Access-Control-Allow-Methods"] == "GET, HEAD, POST, DELETE, OPTIONS"
        assert "Content-Type" in answer.headers["Access-Control-Allow-Headers"]
        for body in (b"{}", b"x" * 257):
            _, headers, _ = await post(edge, body, Origin="https://a.example")
            assert headers.getall("Access-Control-Allow-Origin") == ["*"]


async def test_bodies_that_are_being_read_are_counted_apart(folder: Path, tmp_path: Path) -> None:
    """One network has a few of them at once, and none takes the place of a request whose body is here."""
    async with serving(folder, tmp_path, most=10) as edge:
        forwarder = _Forwarder(edge.node, "")
        with contextlib.ExitStack() as slow:
            for last in range(8):
                slow.enter_context(forwarder._read_for(bytes([203, 0, 113, last])))
            with pytest.raises(StreamGateError, match="overloaded"), forwarder._read_for(bytes([203, 0, 113, 99])):
                raise AssertionError("it was let in")
            for last in range(2):
                slow.enter_context(forwarder._read_for(bytes([198, 51, last, 1])))
            with pytest.raises(StreamGateError, match="overloaded"), forwarder._read_for(bytes([192, 0, 2, 1])):
                raise AssertionError("it was let in")
            assert forwarder._under_way == 0
        assert not forwarder._reading


@pytest.mark.parametrize(("path", "credentials"), [("/api/v1/auth/refresh", None), (CALL, "true")])
async def test_no_credentials_of_other_origins(
    folder: Path, tmp_path: Path, auth: FakeAuth, path: str, credentials: str | None
) -> None:
    given = settings(cors_origins=("https://a.example",))
    async with running(Folder(folder), given, auth=str(tmp_path / "auth.sock")) as edge:
        for method in ("OPTIONS", "POST"):
            answer = await edge.ask(path, {"Origin": "https://a.example"}, method)
            assert answer.headers["Access-Control-Allow-Origin"] == "https://a.example"
            assert answer.headers.get("Access-Control-Allow-Credentials") == credentials


@pytest.mark.parametrize(
    "first", [b"", b"GET /v/film/main.m3u8 HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["alone", "after media"]
)
async def test_slow_bodies_keep_nobody_from_ending(folder: Path, tmp_path: Path, auth: FakeAuth, first: bytes) -> None:
    """Neither the edge, which cuts them at its deadline, nor others, who are told at once that there are too many."""
    given = settings(drain={"deadline": 0.3}).model_copy(update={"api": ApiSettings(timeout=30.0)})
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" % CALL.encode()
    clients = []

    async def trickle(writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)

    async with asyncio.timeout(10):
        async with running(Folder(folder), given, auth=str(tmp_path / "auth.sock")) as edge:
            for n in range(8):
                reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
                writer.write(first + head)
                # Half of them send on, and half of them nothing.
                clients.append((reader, writer, asyncio.create_task(trickle(writer)) if n % 2 else None))
            while (await post(edge, b"{}"))[0] != 503:
                await asyncio.sleep(0.01)
            assert (await edge.ask("/v/film/main.m3u8")).status == 200
        # They are cut: what was under way has no answer.
        for reader, writer, sending in clients:
            with contextlib.suppress(ConnectionError):
                assert (await reader.read()).count(b"HTTP/1.1 ") == bool(first)
            if sending is not None:
                sending.cancel()
            writer.close()
    assert len(auth.requests) < 100


async def test_a_slow_body_is_given_up(folder: Path, tmp_path: Path, auth: FakeAuth) -> None:
    async with serving(folder, tmp_path, timeout=0.2) as edge:
        head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{" % CALL.encode()
        answers = await asyncio.gather(*(edge.raw(head) for _ in range(8)))
        assert {(each.status, each.code) for each in answers} == {(408, "head_timeout")}
        assert (await post(edge))[0] == 201 and len(auth.requests) == 1
