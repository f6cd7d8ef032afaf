"""Renewal in band: who comes with a token that is about to end is given the next with what was asked for, and nobody else is."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from http.cookies import SimpleCookie
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from edge.cors import EXPOSED
from edge.renewal import on_this_machine
from streamgate.access import tokens
from streamgate.access.tokens import AUTOMATIC, BY_COOKIE, BY_HEADER, BY_REDIRECT, COOKIE, NAME, Renewal
from streamgate.core.settings import AuthSettings, LeaseSettings, Settings, TokenSettings
from streamgate.errors import StreamGateError
from streamgate.native.cat import Verifier, decode
from streamgate.storage.assets import open_asset
from streamgate.storage.discovery import discover
from tests.edge import gated
from tests.edge.fake_auth import FakeAuth
from tests.edge.harness import Answer, Edge, Folder, running, settings

LIFE = 300
AHEAD = 120
RENEW = "/api/v1/playback/renew"
PAGE = "https://player.example.com"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gated.assets(tmp_path_factory.mktemp("gated"))


@pytest.fixture(scope="module")
def segment(root: Path) -> str:
    """The name of one that is kept in memory once somebody asked for it."""
    [ref] = [ref for ref in discover(root) if ref.id == "gated"]
    return f"{open_asset(ref).presentation.video[0].name}/init.mp4"


@pytest.fixture
async def auth(tmp_path: Path) -> AsyncIterator[FakeAuth]:
    made = FakeAuth()
    async with made.listening(tmp_path / "auth.sock"):
        yield made


def chosen(renewals: float = 1000, **edge: Any) -> Settings:
    given = {"leases": LeaseSettings(), "tokens": TokenSettings(), "auth": AuthSettings(renewals_per_session=renewals)}
    return settings(**edge).model_copy(update=given)


@pytest.fixture
async def edge(root: Path, tmp_path: Path, auth: FakeAuth) -> AsyncIterator[Edge]:
    async with serving(root, tmp_path) as made:
        yield made


def serving(root: Path, tmp_path: Path, given: Settings | None = None) -> Any:
    return _Serving(
        running(
            Folder(root),
            given or chosen(),
            verifier=Verifier([gated.KEY.verifying()]),
            auth=str(tmp_path / "auth.sock"),
        )
    )


class _Serving:
    """An edge that holds its site's key, as the streaming role sees to."""

    def __init__(self, edge: Any) -> None:
        self._edge = edge

    async def __aenter__(self) -> Edge:
        edge: Edge = await self._edge.__aenter__()
        edge.node.renewing.configure([gated.KEY])
        return edge

    async def __aexit__(self, *error: object) -> None:
        await self._edge.__aexit__(*error)


class Viewer:
    """A session of the gated film; ``left``: seconds to the end of its token."""

    def __init__(self, edge: Edge, auth: FakeAuth, carriage: str = "header", left: int = 60, **more: Any) -> None:
        self.edge = edge
        self.carriage = carriage
        self.session = os.urandom(16)
        auth.sessions[self.session.hex()] = "gated"
        self.ends = int(time.time()) + left
        renewal = {
            "header": Renewal(BY_HEADER, LIFE, AHEAD, header=NAME),
            "cookie": Renewal(BY_COOKIE, LIFE, AHEAD, cookie=COOKIE),
        }.get(carriage, Renewal(BY_REDIRECT, LIFE, AHEAD))
        given = {"asset": "gated", "session": self.session, "expires": self.ends, "renewal": renewal, **more}
        self.token = tokens.mint(gated.KEY, **given)

    async def ask(self, leaf: str = "main.m3u8", **headers: str) -> Answer:
        path, given = f"/v/gated/{leaf}", dict(headers)
        if self.carriage == "header":
            given[NAME] = self.token
        elif self.carriage == "cookie":
            given["Cookie"] = f"{COOKIE}={self.token}"
        elif self.carriage == "query":
            path += f"?{NAME}={self.token}"
        else:
            path = f"/t/{self.token}{path}"
        return await self.edge.ask(path, given)

    def follows(self, token: str, least: float = LIFE - 5) -> None:
        """Check that ``token`` is the next one of this session."""
        before, after = decode(self.token)[3], decode(token)[3]
        assert {key: value for key, value in after.items() if key not in (4, 7)} == {
            key: value for key, value in before.items() if key not in (4, 7)
        }
        assert after[7] == self.session + b"\x01"
        assert isinstance(after[4], int)
        assert time.time() + least < after[4] <= time.time() + LIFE
        Verifier([gated.KEY.verifying()]).read(token)


def brings(answer: Answer) -> bool:
    return NAME in answer.headers or "Set-Cookie" in answer.headers


async def test_a_header_is_answered_with_the_next_one(edge: Edge, auth: FakeAuth, segment: str) -> None:
    viewer = Viewer(edge, auth)
    for leaf in ("main.m3u8", segment):
        answer = await viewer.ask(leaf, Origin=PAGE)
        assert answer.status == 200
        viewer.follows(answer.headers[NAME])
        assert answer.headers["Cache-Control"] == "private, no-store"
        assert NAME in answer.headers["Access-Control-Expose-Headers"].split(", ")
        assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert edge.node.telemetry.value("token_renewals", way="header") == 2
    viewer.token = answer.headers[NAME]
    answer = await viewer.ask(segment)
    assert (answer.status, brings(answer)) == (200, False), "the next one is not due yet"


async def test_a_cookie_is_set_anew(edge: Edge, auth: FakeAuth, segment: str) -> None:
    viewer = Viewer(edge, auth, "cookie")
    answer = await viewer.ask(segment)
    cookie = SimpleCookie(answer.headers["Set-Cookie"])[COOKIE]
    viewer.follows(cookie.value)
    assert (cookie["path"], cookie["httponly"], cookie["samesite"]) == ("/v/gated/", True, "Lax")
    assert 3590 < int(cookie["max-age"]) <= 3600, "as long as the session, not as the token"
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert NAME not in answer.headers
    assert cookie["secure"] == "", "over this machine alone"
    elsewhere = await viewer.ask(segment, Host="media.example.com")
    assert SimpleCookie(elsewhere.headers["Set-Cookie"])[COOKIE]["secure"] is True


@pytest.mark.parametrize("carriage", ["path", "query"])
async def test_playlists_are_redirected_and_segments_never(
    edge: Edge, auth: FakeAuth, segment: str, carriage: str
) -> None:
    viewer = Viewer(edge, auth, carriage)
    for leaf in ("main.m3u8", "main.mpd", f"{segment.partition('/')[0]}/index.m3u8"):
        answer = await viewer.ask(leaf)
        assert (answer.status, answer.headers["Cache-Control"]) == (302, "no-store")
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        empty, form, token, rest = answer.headers["Location"].split("/", 3)
        assert (empty, form, rest) == ("", "t", f"v/gated/{leaf}")
        viewer.follows(token)
        there = await edge.ask(answer.headers["Location"])
        assert (there.status, brings(there)) == (200, False)
    answer = await viewer.ask(segment)
    assert (answer.status, brings(answer)) == (200, False)


@pytest.mark.parametrize(("asked", "status"), [(307, 307), (302, 302), (301, 302), (200, 302)])
async def test_a_redirect_is_never_for_good(edge: Edge, auth: FakeAuth, asked: int, status: int) -> None:
    viewer = Viewer(edge, auth, "path", renewal=Renewal(BY_REDIRECT, LIFE, AHEAD, status=asked))
    assert (await viewer.ask("main.m3u8?x=1")).status == status
    assert (await viewer.ask("main.m3u8?x=1")).headers["Location"].endswith("/v/gated/main.m3u8?x=1")


@pytest.mark.parametrize("carriage", ["header", "cookie", "path"])
async def test_automatic_goes_the_way_it_came(edge: Edge, auth: FakeAuth, carriage: str) -> None:
    answer = await Viewer(edge, auth, carriage, renewal=Renewal(AUTOMATIC, LIFE, AHEAD)).ask()
    found = {"header": NAME, "cookie": "Set-Cookie", "path": "Location"}
    assert [name for name in found.values() if name in answer.headers] == [found[carriage]]


@pytest.mark.parametrize(("carriage", "kind"), [("header", BY_COOKIE), ("cookie", BY_HEADER), ("path", BY_HEADER)])
async def test_no_other_way(edge: Edge, auth: FakeAuth, carriage: str, kind: int) -> None:
    """Two tokens of which each is good would be one too many with the next request."""
    answer = await Viewer(edge, auth, carriage, renewal=Renewal(kind, LIFE, AHEAD)).ask()
    assert (answer.status, brings(answer)) == (200, False)


@pytest.mark.parametrize(
    ("left", "deadline", "due"),
    [(AHEAD - 1, AHEAD, True), (AHEAD + 5, AHEAD, False), (LIFE // 2 - 1, None, True), (LIFE // 2 + 5, None, False), (-20, 0, True)],
)  # fmt: skip
async def test_when(edge: Edge, auth: FakeAuth, left: int, deadline: int | None, due: bool) -> None:
    viewer = Viewer(edge, auth, left=left, renewal=Renewal(BY_HEADER, LIFE, deadline))
    answer = await viewer.ask()
    assert (answer.status, brings(answer)) == (200, due)


async def test_the_key_that_signs_now(edge: Edge, auth: FakeAuth) -> None:
    """Where it is told which that is; else the one before, which all know."""
    later = replace(gated.KEY, kid=b"site-2", secret=bytes(range(1, 33)))
    edge.node.gate.verifier.configure([gated.KEY.verifying(), later.verifying()])
    for signer, kid in ((None, b"site-1"), (later, b"site-2")):
        edge.node.renewing.configure([gated.KEY, later], signer)
        assert decode((await Viewer(edge, auth).ask()).headers[NAME])[2][4] == kid
    edge.node.renewing.configure([later])
    answer = await Viewer(edge, auth).ask()
    assert (answer.status, brings(answer)) == (200, False)


async def test_what_counts_once_is_not_renewed(edge: Edge, auth: FakeAuth) -> None:
    viewer = Viewer(edge, auth)
    claims: dict[Any, Any] = decode(viewer.token)[3]
    for replay, due in ((0, True), (2, False)):
        viewer.token = tokens.sign(gated.KEY, {**claims, 308: replay})
        answer = await viewer.ask()
        assert brings(answer) == (due and answer.status == 200)


async def test_past_the_grace_the_page_is_told_where(edge: Edge, auth: FakeAuth) -> None:
    for carriage in ("header", "cookie", "path"):
        answer = await Viewer(edge, auth, carriage, left=-31).ask()
        assert (answer.status, answer.code, answer.json()["renew"]) == (401, "token_expired", RENEW)
        assert answer.headers["WWW-Authenticate"] == f'{NAME} renew="{RENEW}"'
        assert not brings(answer)


async def test_never_beyond_the_cap(edge: Edge, auth: FakeAuth) -> None:
    auth.extra = {"cap": int(time.time()) + 90}
    viewer = Viewer(edge, auth, left=60)
    token = (await viewer.ask()).headers[NAME]
    assert decode(token)[3][4] == auth.extra["cap"]
    viewer.token = token
    answer = await viewer.ask()
    assert (answer.status, brings(answer)) == (200, False), "there is nothing left to give"


async def test_never_for_a_session_that_has_ended(edge: Edge, auth: FakeAuth) -> None:
    viewer = Viewer(edge, auth)
    auth.refused[viewer.session.hex()] = "session_ended"
    answer = await viewer.ask()
    assert (answer.status, answer.json()["renew"], brings(answer)) == (401, RENEW, False)


async def test_never_where_nobody_knows_the_session(root: Path, tmp_path: Path, auth: FakeAuth) -> None:
    """Nothing would end it."""
    given = chosen().model_copy(update={"tokens": TokenSettings(without_session=True)})
    async with serving(root, tmp_path, given) as edge:
        answer = await Viewer(edge, auth).ask()
        assert (answer.status, brings(answer)) == (200, False)


async def test_never_a_foreign_token(root: Path, tmp_path: Path, auth: FakeAuth) -> None:
    key = replace(gated.KEY, kid=b"other", issuer="other", leased=False)
    verifier = Verifier([key.verifying()])
    async with running(Folder(root), chosen(), verifier=verifier, auth=str(tmp_path / "auth.sock")) as edge:
        edge.node.renewing.configure([key], key)
        renewal = Renewal(BY_HEADER, LIFE, AHEAD)
        token = tokens.mint(key, asset="gated", session=os.urandom(16), expires=int(time.time()) + 60, renewal=renewal)
        answer = await edge.ask("/v/gated/main.m3u8", {NAME: token})
        assert (answer.status, brings(answer)) == (200, False)


async def test_no_more_often_than_a_session_may(root: Path, tmp_path: Path, auth: FakeAuth) -> None:
    async with serving(root, tmp_path, chosen(renewals=3)) as edge:
        viewer, other = Viewer(edge, auth, "cookie"), Viewer(edge, auth)
        answers = [await viewer.ask() for _ in range(6)]
        assert [brings(answer) for answer in answers] == [True] * 3 + [False] * 3
        assert {answer.status for answer in answers} == {200}
        assert brings(await other.ask())


async def test_a_burst_gets_one_token_and_the_hot_path_the_rest(edge: Edge, auth: FakeAuth, segment: str) -> None:
    """Of a connection's requests one a second leaves the hot path; what is in memory holds no token."""
    first = Viewer(edge, auth, left=1000)
    assert (await first.ask(segment)).status == 200
    viewer = Viewer(edge, auth)
    head = f"GET /v/gated/{segment} HTTP/1.1\r\nHost: x\r\n{NAME}: {viewer.token}\r\n\r\n".encode()
    async with edge.connect() as (reader, writer):
        answers = []
        began = int(time.time())
        for _ in range(20):
            writer.write(head)
            told = await reader.readuntil(b"\r\n\r\n")
            size = next(int(line[15:]) for line in told.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            await reader.readexactly(size)
            answers.append(told)
        seconds = int(time.time()) - began + 1
    bringing = [told for told in answers if f"{NAME}: ".encode() in told.replace(b"Headers: ", b"")]
    native = [told for told in answers if b"native;dur" in told]
    assert 1 <= len(bringing) <= seconds + 1, "the first of all asks for a lease, too"
    assert len(native) >= 20 - seconds - 1
    assert not set(native) & set(bringing)
    again = await first.ask(segment)
    assert (again.headers["Cache-Control"], brings(again)) == ("private, max-age=31536000, immutable", False)
    at_once = await asyncio.gather(*(viewer.ask(segment) for _ in range(5)))
    given = {decode(answer.headers[NAME])[3][7] for answer in at_once if brings(answer)}
    assert given <= {viewer.session + b"\x01"}


async def test_no_tier_holds_what_an_answer_brought(root: Path, tmp_path: Path, auth: FakeAuth, segment: str) -> None:
    data = tmp_path / "data"
    on_disk = settings({"data": str(data)}, disk_bytes=2**30, memory_object=0)
    given = chosen().model_copy(update={"server": on_disk.server, "edge": on_disk.edge})
    video = segment.partition("/")[0]
    brought: list[bytes] = []
    async with serving(root, tmp_path, given) as edge:
        for carriage in ("header", "cookie"):
            for leaf in ("main.m3u8", f"{video}/init.mp4", f"{video}/0.m4s", f"{video}/1.m4s"):
                answer = await Viewer(edge, auth, carriage).ask(leaf)
                found = answer.headers.get(NAME) or SimpleCookie(answer.headers["Set-Cookie"])[COOKIE].value
                brought.append(found.encode())
                for other in ("path", carriage):
                    again = await Viewer(edge, auth, other, left=1000).ask(leaf)
                    assert (again.status, brings(again)) == (200, False)
    kept = await asyncio.to_thread(lambda: b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file()))
    assert len(kept) > 1000, "segments are on the disk"
    assert not any(token in kept for token in brought)


async def test_an_answer_without_a_body_brings_it_too(edge: Edge, auth: FakeAuth, segment: str) -> None:
    viewer = Viewer(edge, auth, "cookie")
    tag = (await viewer.ask(segment)).headers["ETag"]
    answer = await viewer.ask(segment, **{"If-None-Match": tag})
    assert (answer.status, brings(answer), answer.headers["Cache-Control"]) == (304, True, "private, no-store")
    part = await viewer.ask(segment, Range="bytes=0-9")
    assert (part.status, brings(part)) == (206, True)


async def test_a_name_that_catr_gives(edge: Edge, auth: FakeAuth) -> None:
    viewer = Viewer(edge, auth, renewal=Renewal(BY_HEADER, LIFE, AHEAD, header="X-Next"))
    answer = await viewer.ask()
    viewer.follows(answer.headers["X-Next"])
    assert answer.headers["Access-Control-Expose-Headers"].endswith(", X-Next")
    for name in ("Content-Length", "Transfer-Encoding", "X-no name", ""):
        odd = await Viewer(edge, auth, renewal=Renewal(BY_HEADER, LIFE, AHEAD, header=name)).ask()
        assert odd.status == 200
        assert int(odd.headers["Content-Length"]) == len(odd.body)
        assert NAME in odd.headers


async def test_each_carriage_and_who_may_read_it(root: Path, tmp_path: Path, auth: FakeAuth) -> None:
    """Path and header: any origin. A cookie: named ones, with credentials."""
    allow, credentials = "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials"
    async with serving(root, tmp_path, chosen(cors_origins=("*", PAGE))) as edge:
        for carriage in ("path", "header", "cookie"):
            viewer = Viewer(edge, auth, carriage, left=1000)
            named, stranger = await viewer.ask(Origin=PAGE), await viewer.ask(Origin="https://else.example.org")
            assert (named.headers[allow], named.headers[credentials]) == (PAGE, "true")
            assert (stranger.headers[allow], credentials in stranger.headers) == ("*", False)
            assert {named.headers["Vary"], stranger.headers["Vary"]} == {"Accept-Encoding, Origin"}
        preflight = await edge.ask("/v/gated/main.m3u8", {"Origin": PAGE}, "OPTIONS")
        assert NAME in preflight.headers["Access-Control-Allow-Headers"].split(", ")
        assert preflight.headers[credentials] == "true"
    assert NAME in EXPOSED.split(", ")


@pytest.mark.parametrize(
    ("scheme", "host", "address", "plain"),
    [
        ("http", "127.0.0.1:8080", "127.0.0.1", True),
        ("http", "localhost", "127.9.9.9", True),
        ("http", "[::1]:8080", "::1", True),
        ("http", "LOCALHOST:80", "::1", True),
        ("https", "localhost", "127.0.0.1", False),
        ("http", "localhost", "203.0.113.1", False),
        ("http", "localhost", "7f00::1", False),
        ("http", "localhost", "", False),
        ("http", "media.example.com", "127.0.0.1", False),
        ("http", "", "127.0.0.1", False),
    ],
)
def test_where_a_cookie_need_not_be_secure(scheme: str, host: str, address: str, plain: bool) -> None:
    assert on_this_machine(scheme, host, ip_address(address).packed if address else b"") is plain


def test_the_next_token_says_what_the_last_one_said() -> None:
    claims: dict[object, object] = {1: "streamgate", 4: 10.5, 7: bytes(16) + b"\xff", 311: [(52, [24, b"\x01\x02\x03\x00"])], 323: {0: 2, 1: 5}}  # fmt: skip
    after = decode(tokens.renewed(gated.KEY, claims, expires=99))[3]
    assert after == {**claims, 4: 99, 7: bytes(16) + b"\x01\x00"}
    for cti in (None, b"short", bytes(16) + b"\xff" * 8):
        with pytest.raises(StreamGateError) as caught:
            tokens.renewed(gated.KEY, {**claims, 7: cti}, expires=99)
        assert caught.value.code == "token_malformed"
    with pytest.raises(StreamGateError):
        tokens.renewed(gated.KEY, {**claims, 320: {1: True}}, expires=99)
