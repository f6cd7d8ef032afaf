"""The native path and aiohttp's give equal answers: every request runs against both, on one node with one memory.

Compared are status, fields and body of each answer of a connection, except for what tells of the moment and of the path itself
(Date, Age, Server-Timing). A counter shows which path answered, so that neither can hide behind the other.
"""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.app import make_app
from edge.connections import Connections
from edge.node import Node, make_node
from streamgate.access import tokens
from streamgate.access.keys import SharedKey
from streamgate.core.health import Health
from streamgate.core.telemetry import Telemetry
from streamgate.native.cat import Verifier
from streamgate.native.hotpath import COUNTERS
from tests.edge.harness import Folder
from tests.edge.harness import settings as chosen
from tests.media_factory import Audio, Video, make

KEY = SharedKey(b"site-1", bytes(range(32)), "streamgate", ("local",), ("iss", "exp", "cti", "aud"))
OTHER_KEY = SharedKey(b"site-1", bytes(range(1, 33)), "streamgate", ("local",), ("iss", "exp", "cti", "aud"))
SESSION = bytes(range(16))
T = TypeVar("T")
# They tell of the moment, or of how long which part took.
CHANGING = {"date", "age", "server-timing"}


@dataclass(frozen=True)
class Answer:
    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes


class Pair:
    """A node on an event loop in a thread, with a listener for each path."""

    def __init__(self, root: Path, data: Path) -> None:
        self.loop = uvloop.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="pair")
        self.thread.start()
        self.native: int
        self.reference: int
        self.node: Node
        self.native, self.reference, self.node = self.run(self._start(root, data))
        self.counters = self.node.telemetry.block(COUNTERS)
        self.paths = self.warm()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    async def _start(self, root: Path, data: Path) -> tuple[int, int, Node]:
        limits = chosen(
            server={"data": str(data)},
            disk_bytes=2**28,
            memory_object=20_000,
            revalidate=60,
        )
        node = make_node(
            limits, Folder(root), await asyncio.to_thread(Telemetry), Health(), Verifier([KEY.verifying()])
        )
        self.runner = web.AppRunner(make_app(node), access_log=None)
        await self.runner.setup()
        assert self.runner.server is not None
        await node.gate.start()
        connections = Connections(node, self.runner.server)
        listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        native = await self.loop.create_server(connections, sock=listening[0])  # type: ignore[arg-type]
        reference = await self.loop.create_server(lambda: connections.handler(b""), sock=listening[1])
        node.health.state = "ready"
        self.connections, self.servers = connections, (native, reference)
        return listening[0].getsockname()[1], listening[1].getsockname()[1], node

    async def _stop(self) -> None:
        for server in self.servers:
            server.close()
        await self.connections.drain(5)
        await self.runner.cleanup()
        self.node.close()

    def close(self) -> None:
        self.run(self._stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def warm(self) -> list[str]:
        """Bring an object of every kind into the memory tier, in all codings; their paths below an asset."""
        names = ["main.m3u8", "main.mpd"]
        for asset, token in (("free", ""), ("gated", f"/t/{mint()}")):
            [playlist] = exchange(self.reference, get(f"{token}/v/{asset}/main.m3u8", last=True), ["GET"])
            video = re.search(rb"^(v[^/]*)/index.m3u8", playlist.body, re.M)
            assert video is not None
            names[2:] = [f"{video[1].decode()}/{leaf}" for leaf in ("index.m3u8", "init.mp4", "0.m4s", "k0.m4s")]
            for name in names:
                for coding in ("", "br", "zstd", "gzip"):
                    asked = get(f"{token}/v/{asset}/{name}", {"Accept-Encoding": coding} if coding else {}, last=True)
                    for _ in range(3):
                        exchange(self.reference, asked, ["GET"])
        return names

    @property
    def natively(self) -> int:
        """How many answers the native path has given."""
        return int(self.counters[COUNTERS.index("native_answers")])


def mint(key: SharedKey = KEY, asset: str = "gated", expires: float = 1000, **more: object) -> str:
    return tokens.mint(key, asset=asset, session=SESSION, expires=int(time.time() + expires), **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    root = tmp_path_factory.mktemp("assets")
    made = make(root / "free.mp4", Video(gop=25), Audio(), seconds=9)
    (root / "gated").mkdir()
    (root / "gated/film.mp4").write_bytes(made.read_bytes())
    (root / "gated/asset.toml").write_text('gated = true\n[[source]]\nfile = "film.mp4"\n')
    running = Pair(root, tmp_path_factory.mktemp("data"))
    yield running
    running.close()


def get(path: str, fields: dict[str, str] | None = None, method: str = "GET", *, last: bool = False) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: edge", *(f"{n}: {v}" for n, v in (fields or {}).items())]
    return "\r\n".join([*lines, *(["Connection: close"] if last else []), "", ""]).encode("latin-1")


def exchange(port: int, sent: bytes, methods: list[str], splits: list[int] | None = None) -> list[Answer]:
    """All answers on one connection; ``sent`` goes out in pieces, and asks for the connection's end."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        at = 0
        for end in [*sorted(splits or ()), len(sent)]:
            if at < end <= len(sent):
                try:
                    sock.sendall(sent[at:end])
                except (BrokenPipeError, ConnectionResetError):
                    break  # refused already
                at = end
        received = b""
        try:
            while chunk := sock.recv(1 << 16):
                received += chunk
        except ConnectionResetError:
            pass
    answers = []
    for method in methods:
        if not received:
            break
        head, _, received = received.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        fields = sorted((name.lower(), value) for name, value in (each.split(": ", 1) for each in lines))
        status = int(line.split()[1])
        length = int(dict(fields).get("content-length", 0)) if method != "HEAD" and status != 304 else 0
        answers.append(Answer(status, tuple(f for f in fields if f[0] not in CHANGING), received[:length]))
        assert len(answers[-1].body) == length and line.startswith("HTTP/1.1 ")
        received = received[length:]
    assert not received
    return answers


@dataclass(frozen=True)
class Request:
    """``native``: the hot path must answer it by itself."""

    method: str
    path: str
    fields: tuple[tuple[str, str], ...]
    native: bool

    def encode(self, last: bool) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{n}: {v}" for n, v in self.fields)]
        return "\r\n".join([*lines, *(["Connection: close"] if last else []), "", ""]).encode("latin-1")


TAGS = ("*", '"no"', 'W/"no", {}', "W/{}", "{}", '"no", {}', "{}x", "", '"', '"no" {}')
number = st.integers(0, 3000) | st.integers(0, 10**6) | st.just(10**20)
RANGES = st.one_of(
    st.builds("bytes={}-{}".format, number, number),
    st.builds("bytes={}-".format, number),
    st.builds("bytes=-{}".format, number),
    st.builds("Bytes = {} - {}".format, number, number),
    st.builds(" bytes={}-{} , ".format, number, number),
    st.builds("bytes={}-1,5-{}".format, number, number),
    st.sampled_from(
        ["bytes=", "bytes=-", "bytes", "items=0-1", "bytes=0-0", "bytes=,,0-1", "bytes=1-0", "bytes=+1-2", "bytes=-0"]
    ),
)
CODINGS = st.sampled_from(
    [
        "br",
        "gzip, deflate, br, zstd",
        "gzip",
        "identity",
        "*",
        "br;q=0, *;q=0.5",
        "zstd;q=0.9, br;q=1.0",
        "x-gzip",
        "br;q=2",
        "",
    ]
)
PLAIN_FIELDS = st.dictionaries(
    st.sampled_from(
        ["User-Agent", "Accept", "Referer", "CMCD-Object", "CMCD-Session", "traceparent", "Origin", "If-Modified-Since"]
    ),
    st.sampled_from(
        ["", "a", 'br=3200,d=4004,ot=v,sid="a-b"', "Sat, 29 Oct 1994 19:43:31 GMT", "https://player.example", "\xe9"]
    ),
    max_size=4,
)
QUERIES = st.sampled_from(["", "?", "?CMCD=br%3D3200%2Cot%3Dv", "?a=b&c", "?x=/../"])


@st.composite
def requests(draw: st.DrawFn, names: list[str]) -> Request:
    """A request for an object in memory, and whether nothing in it is another's business."""
    method = draw(st.sampled_from(["GET", "GET", "GET", "HEAD", "OPTIONS", "POST", "PUT"]))
    name = draw(st.sampled_from(names))
    native = method in ("GET", "HEAD")
    access = draw(
        st.sampled_from(["free", "path", "path", "header", "none", "expired", "other", "forged", "method", "both"])
    )
    fields: list[tuple[str, str]] = [("Host", draw(st.sampled_from(["edge", "edge:80", "[::1]:8080", ""])))]
    prefix, asset = "", "gated"
    if access == "free":
        asset = "free"
    elif access == "none":
        native = False
    else:
        token = {
            "expired": lambda: mint(expires=-40),
            "other": lambda: mint(asset="free"),
            "forged": lambda: mint(OTHER_KEY),
            "method": lambda: mint(methods=["HEAD"]),
        }.get(access, mint)()
        native &= access in ("path", "header") or (access == "method" and method == "HEAD")
        if access in ("header", "both"):
            fields.append(("CTA-Common-Access-Token", token))
        if access != "header":
            prefix = f"/t/{token}"
    path = f"{prefix}/v/{asset}/{name}{draw(QUERIES)}"
    fields += draw(PLAIN_FIELDS).items()
    tag = '"unknown"'
    if draw(st.booleans()):
        fields.append(("If-None-Match", draw(st.sampled_from(TAGS)).format(tag)))
    if draw(st.booleans()):
        fields.append(("Range", draw(RANGES)))
    if draw(st.integers(0, 3)) == 0:
        fields.append(
            ("If-Range", draw(st.sampled_from(["{}", "W/{}", '"no"', "Sat, 29 Oct 1994 19:43:31 GMT"])).format(tag))
        )
    if draw(st.booleans()):
        fields.append(("Accept-Encoding", draw(CODINGS)))
    if draw(st.integers(0, 9)) == 0:
        fields.append(draw(st.sampled_from([
            ("If-Match", tag), ("Cookie", "CTA-Common-Access-Token=x"), ("Expect", "something"),
            ("Range", "bytes=0-1"), ("If-None-Match", '"more"'), ("Cookie", "a=b"),
        ])))  # fmt: skip
        native &= fields[-1] == ("Cookie", "a=b") or (
            fields[-1][0] in ("Range", "If-None-Match") and [n for n, _ in fields].count(fields[-1][0]) == 1
        )
    if any(n == "Origin" and "\xe9" in v for n, v in fields):
        native = False
    return Request(method, path, tuple(fields), native)


def with_tag(request: Request, pair: Pair) -> Request:
    """The same request with the object's own tag in its conditions."""
    if not any('"unknown"' in value for _, value in request.fields):
        return request
    bare = request.path.partition("?")[0]
    key = bare[bare.index("/v/") :].encode()
    coded = dict(request.fields).get("Accept-Encoding", "")
    stored = pair.node.tiers.memory.index.get(
        key + b";br" if "br" in coded else key
    ) or pair.node.tiers.memory.index.get(key)
    assert stored is not None
    fields = tuple((name, value.replace('"unknown"', stored.tag.decode())) for name, value in request.fields)
    return Request(request.method, request.path, fields, request.native)


def test_objects_in_memory_and_in_files_are_compared(pair: Pair) -> None:
    index = pair.node.tiers.memory.index
    kept = [index.get(f"/v/{asset}/{name}".encode()) for asset in ("free", "gated") for name in pair.paths]
    assert all(kept) and {stored.fd >= 0 for stored in kept if stored} == {True, False}


@settings(max_examples=150)
@given(data=st.data())
def test_both_paths_give_equal_answers(pair: Pair, data: st.DataObject) -> None:
    asked = [with_tag(each, pair) for each in data.draw(st.lists(requests(pair.paths), min_size=1, max_size=4))]
    sent = b"".join(each.encode(each is asked[-1]) for each in asked)
    splits = data.draw(st.lists(st.integers(1, len(sent)), max_size=4))
    methods = [each.method for each in asked]
    before = pair.natively
    native = exchange(pair.native, sent, methods, splits)
    after = pair.natively
    reference = exchange(pair.reference, sent, methods, splits)
    assert native == reference
    if all(each.native for each in asked):
        assert after - before == len(asked)
    elif not any(each.native for each in asked):
        assert after == before


ODD = [
    "Host: again", "Connection: keep-alive, close", "Connection: Close", "Connection: keep-alive", "X : a", "X\t: a", " X: a", "X: a\0b",
    "X: a\x0bb", "X: a\nY: b", "X: a\rY: b", "X: a\r\n b", ": a", "X", "X y: a", "Host: a/b", "Content-Length: 0",
    "Content-Length: +1", "Content-Length: 1, 1", "Content-Length: 0\r\nContent-Length: 0", "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked, gzip", "Content-Length: 0\r\nTransfer-Encoding: chunked", "Upgrade: h2c", "TE: trailers", "X: \xff",
    "If-None-Match: \"\xe9\"", "Range: bytes=0-1\xa0", "X: " + "a" * 9000, "Forwarded: for=192.0.2.1", "Keep-Alive: timeout=5",
    "\r\n".join(f"X{n}: a" for n in range(101)),
]  # fmt: skip
LINES = [
    "GET {} HTTP/1.0", "GET {} HTTP/2.0", "GET {}", "GET  {} HTTP/1.1", "get {} HTTP/1.1", "GET {} http/1.1", "GET {}  HTTP/1.1",
    "GET {}\tHTTP/1.1", "GET http://edge{} HTTP/1.1", "GET /.{} HTTP/1.1", "GET /{} HTTP/1.1", "GET {};br HTTP/1.1", "GET {}# HTTP/1.1",
    "GET {}%20 HTTP/1.1", "GET {}\xff HTTP/1.1", "GET /t/{} HTTP/1.1", "GET /t/x{} HTTP/1.1", "GET /t//{} HTTP/1.1",
    "GET /t/{{token}}/t/{{token}}{} HTTP/1.1", "GET {}/ HTTP/1.1", "GET {}?CTA-Common-Access-Token=x HTTP/1.1", "\r\nGET {} HTTP/1.1",
    "\nGET {} HTTP/1.1", "G@T {} HTTP/1.1", "GET {} HTTP/1.1\n", "OPTIONS * HTTP/1.1", "CONNECT edge:80 HTTP/1.1",
]  # fmt: skip


# What llhttp repairs, and RFC 9112 lets a server refuse (sections 2.2 and 3): a head for HTTP/0.9, blanks, a bare line feed.
STRICTER = {(line, "X: a") for line in ("GET {}", "GET  {} HTTP/1.1", "GET {}  HTTP/1.1", "\nGET {} HTTP/1.1")}


@pytest.mark.parametrize("asset", ["free", "gated"])
@pytest.mark.parametrize("odd", [*(("GET {} HTTP/1.1", field) for field in ODD), *((line, "X: a") for line in LINES)])
def test_odd_heads_are_understood_alike(pair: Pair, asset: str, odd: tuple[str, str]) -> None:
    """Or else refused here, with all that follows."""
    path = f"/v/{asset}/{pair.paths[3]}" if asset == "free" else f"/t/{mint()}/v/{asset}/{pair.paths[3]}"
    line = odd[0].format(path).replace("{token}", mint())
    sent = f"{line}\r\nHost: edge\r\n{odd[1]}\r\n\r\n".encode("latin-1")
    native, reference = ended(pair.native, sent), ended(pair.reference, sent)
    if odd in STRICTER:
        assert native.status == 400 and ("connection", "close") in native.fields
    else:
        assert native == reference


def ended(port: int, sent: bytes) -> Answer:
    """The first answer to a lone head, after which the client says no more."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall(sent)
        received = b""
        while b"\r\n\r\n" not in received:
            received += sock.recv(1 << 16) or pytest.fail(f"no answer: {received!r}")
        head, _, body = received.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        fields = sorted((name.lower(), value) for name, value in (each.split(": ", 1) for each in lines))
        status = int(line.split()[1])
        while len(body) < int(dict(fields).get("content-length", 0)):
            body += sock.recv(1 << 16) or pytest.fail("cut short")
    return Answer(status, tuple(f for f in fields if f[0] not in CHANGING), body)
