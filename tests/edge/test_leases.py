"""Leases of one process: a first request waits for one, the rest is answered without asking, and none is kept too long."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edge.freshness import Freshness
from edge.leases import Leasing
from edge.revocations import Revocations
from streamgate.access import tokens
from streamgate.core.settings import LeaseSettings, Settings, TokenSettings
from streamgate.core.telemetry import Telemetry
from streamgate.native.cat import Verifier
from streamgate.storage.kv.events import Event, EventType
from tests.edge import gated
from tests.edge.fake_auth import FakeAuth
from tests.edge.harness import Answer, Edge, Folder, running, settings
from tests.signers import es256

SHORT = {"duration": 0.5, "wait": 0.3}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gated.assets(tmp_path_factory.mktemp("gated"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "auth.sock"


@pytest.fixture
async def auth(path: Path) -> AsyncIterator[FakeAuth]:
    made = FakeAuth()
    async with made.listening(path):
        yield made


def chosen(**leases: Any) -> Settings:
    given = {"leases": LeaseSettings(**leases), "tokens": TokenSettings()}
    return settings().model_copy(update=given)


class Viewer:
    """A session of the gated film, known to the auth role unless it is to be a stranger's."""

    def __init__(self, edge: Edge, auth: FakeAuth | None, session: bytes | None = None) -> None:
        self.edge = edge
        self.session = session or os.urandom(16)
        if auth is not None:
            auth.sessions[self.session.hex()] = "gated"
        ends = int(time.time()) + 1000
        self.token = tokens.mint(gated.KEY, asset="gated", session=self.session, expires=ends)

    async def ask(self, leaf: str = "main.m3u8") -> Answer:
        return await self.edge.ask(f"/t/{self.token}/v/gated/{leaf}")

    async def until(self, status: int) -> Answer:
        """Ask until it is answered so; the test's time limit ends what never is."""
        while (answer := await self.ask()).status != status:
            await asyncio.sleep(0.02)
        return answer


def serving(root: Path, path: Path, **leases: Any) -> Any:
    return running(Folder(root), chosen(**leases), verifier=Verifier([gated.KEY.verifying()]), auth=str(path))


async def test_one_is_asked_for_and_then_nobody_is(root: Path, path: Path, auth: FakeAuth) -> None:
    async with serving(root, path) as edge:
        viewer = Viewer(edge, auth)
        assert [(await viewer.ask()).status for _ in range(5)] == [200] * 5
        assert len(auth.calls) == 1
        row = auth.calls[0]["ask"][0]
        assert row == [viewer.session.hex(), "", "gated", "127.0.0.0/24", "path"]
        assert (auth.calls[0]["extend"], auth.calls[0]["fresh"]) == ([], False)
        assert (await viewer.ask()).headers["Cache-Control"].startswith("private")


async def test_many_at_once_wait_for_one_answer(root: Path, path: Path, auth: FakeAuth) -> None:
    async with serving(root, path) as edge:
        viewers = [Viewer(edge, auth) for _ in range(20)]
        auth.awake.clear()
        asking = [asyncio.create_task(viewer.ask()) for viewer in viewers for _ in range(3)]
        while sum(len(call["ask"]) for call in auth.calls) < 1:
            await asyncio.sleep(0.01)
        auth.awake.set()
        assert {answer.status for answer in await asyncio.gather(*asking)} == {200}
        assert sum(len(call["ask"]) for call in auth.calls) == 20
        assert len(auth.calls) <= 4, "those who come while one asks are asked for together"


@pytest.mark.parametrize(
    ("code", "status"), [("session_ended", 401), ("session_shared", 401), ("too_many_streams", 409)]
)
async def test_refused(root: Path, path: Path, auth: FakeAuth, code: str, status: int) -> None:
    async with serving(root, path) as edge:
        viewer = Viewer(edge, auth)
        auth.refused[viewer.session.hex()] = code
        answer = await viewer.ask()
        assert (answer.status, answer.code) == (status, code)
        assert answer.json().get("renew") == ("/api/v1/playback/renew" if status == 401 else None)
        assert answer.headers["Cache-Control"] == "no-store"
        del auth.refused[viewer.session.hex()]
        assert (await viewer.ask()).status == 200, "a refusal is not remembered"


async def test_unknown_sessions_and_other_assets(root: Path, path: Path, auth: FakeAuth) -> None:
    async with serving(root, path) as edge:
        assert (await Viewer(edge, None).ask()).code == "session_unknown"
        odd = tokens.sign(gated.KEY, {1: "streamgate", 3: "local", 4: int(time.time()) + 1000, 7: b"short"})
        assert (await edge.ask(f"/t/{odd}/v/gated/main.m3u8")).code == "session_unknown"
        assert len(auth.calls) == 1, "what is no session's id is asked of nobody"
        viewer = Viewer(edge, auth)
        auth.sessions[viewer.session.hex()] = "other"
        assert (await viewer.ask()).code == "session_asset"


async def test_no_answer_within_the_bound(root: Path, path: Path, auth: FakeAuth) -> None:
    async with serving(root, path, wait=0.2) as edge:
        viewer, late = Viewer(edge, auth), Viewer(edge, auth)
        assert (await viewer.ask()).status == 200
        auth.awake.clear()
        began = time.monotonic()
        answer = await late.ask()
        assert (answer.status, answer.code) == (503, "lease_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        assert time.monotonic() - began < 5
        assert (await viewer.ask()).status == 200, "who is held is served"
        ready = (await edge.ask("/health/ready")).json()
        assert "the auth role does not answer" in ready["detail"]
        auth.awake.set()
        await late.until(200)
        assert "detail" not in (await edge.ask("/health/ready")).json()


@pytest.mark.parametrize("status", [500, 503])
async def test_an_error_is_no_answer(root: Path, path: Path, auth: FakeAuth, status: int) -> None:
    async with serving(root, path, wait=0.2) as edge:
        auth.status = status
        assert (await Viewer(edge, auth).ask()).code == "lease_unavailable"


async def test_nobody_there(root: Path, path: Path) -> None:
    """It starts without, answers 503, and goes on as soon as there is somebody."""
    async with serving(root, path, wait=0.2) as edge:
        made = FakeAuth()
        viewer = Viewer(edge, made)
        assert (await viewer.ask()).code == "lease_unavailable"
        assert (await edge.ask("/v/free/main.m3u8")).status == 200
        async with made.listening(path):
            await viewer.until(200)


async def test_extended_while_it_is_used(root: Path, path: Path, auth: FakeAuth) -> None:
    auth.seconds = 0.5
    async with serving(root, path, **SHORT) as edge:
        viewer, idle = Viewer(edge, auth), Viewer(edge, auth)
        assert (await idle.ask()).status == 200
        asked = len(auth.calls)
        end = time.monotonic() + 1.6
        while time.monotonic() < end:
            assert (await viewer.ask()).status == 200
            await asyncio.sleep(0.02)
        assert sum(len(call["ask"]) for call in auth.calls[asked:]) == 1, "it played past three leases with one"
        pairs = [[viewer.session.hex(), "127.0.0.0/24"], [idle.session.hex(), "127.0.0.0/24"]]
        assert pairs[1] in auth.extended[0]
        assert all(extension == pairs[:1] for extension in auth.extended[2:])


async def test_not_extended(root: Path, path: Path, auth: FakeAuth) -> None:
    auth.seconds = 0.5
    async with serving(root, path, **SHORT) as edge:
        viewer, other = Viewer(edge, auth), Viewer(edge, auth)
        assert {(await viewer.ask()).status, (await other.ask()).status} == {200}
        auth.refused[viewer.session.hex()] = "session_ended"
        assert (await viewer.until(401)).code == "session_ended"
        assert (await other.ask()).status == 200


async def test_away_and_back(root: Path, path: Path, auth: FakeAuth) -> None:
    auth.seconds = 0.5
    async with serving(root, path, **SHORT) as edge:
        viewer = Viewer(edge, auth)
        assert (await viewer.ask()).status == 200
        auth.awake.clear()
        began = time.monotonic()
        assert (await viewer.until(503)).code == "lease_unavailable"
        assert time.monotonic() - began < 3
        auth.awake.set()
        await viewer.until(200)


async def test_an_outage_that_the_operator_allows(root: Path, path: Path, auth: FakeAuth) -> None:
    auth.seconds = 0.5
    async with serving(root, path, **SHORT, auth_outage=1.5) as edge:
        viewer = Viewer(edge, auth)
        assert (await viewer.ask()).status == 200
        auth.status = 503
        began = time.monotonic()
        while time.monotonic() < began + 1.0:
            assert (await viewer.ask()).status == 200, "longer than its lease"
            await asyncio.sleep(0.02)
        assert (await Viewer(edge, auth).ask()).status == 503, "but nobody new"
        assert (await viewer.until(503)).code == "lease_unavailable"


EVENTS: list[tuple[EventType, bytes]] = [
    ("revoke.grant", bytes.fromhex("ab" * 16)),
    ("revoke.account", b"somebody"),
    ("revoke.entitlement", b"ticket"),
    ("revoke.asset", b"gated"),
]


def happen(edge: Edge, kind: EventType, subject: bytes, until: int | None = None) -> None:
    """As a worker does."""
    event = Event(1, kind, subject, until)
    edge.node.revocations.apply(event)
    edge.node.leasing.apply([event])


@pytest.mark.parametrize(("kind", "subject"), EVENTS)
async def test_revoked(root: Path, path: Path, auth: FakeAuth, kind: EventType, subject: bytes) -> None:
    async with serving(root, path) as edge:
        viewer = Viewer(edge, auth)
        assert {(await viewer.ask()).status for _ in range(3)} == {200}
        happen(edge, kind, b"another")
        assert (await viewer.ask()).status == 200
        happen(edge, kind, subject)
        answer = await viewer.ask()
        assert (answer.status, answer.code) == (401, "session_ended"), "though the auth role still grants it"
        assert len(edge.node.leasing.table) == 0


async def test_a_revoked_session_is_the_verifiers_matter(root: Path, path: Path, auth: FakeAuth) -> None:
    async with serving(root, path) as edge:
        viewer = Viewer(edge, auth)
        assert (await viewer.ask()).status == 200
        happen(edge, "revoke.session", viewer.session)
        assert (await viewer.ask()).code == "token_revoked"
        assert len(edge.node.leasing.table) == 0


async def test_an_answer_on_its_way_brings_nothing_back(root: Path, path: Path, auth: FakeAuth) -> None:
    async with serving(root, path) as edge:
        viewer = Viewer(edge, auth)
        auth.awake.clear()
        asking = asyncio.create_task(viewer.ask())
        while not auth.calls:
            await asyncio.sleep(0.01)
        happen(edge, "revoke.account", b"somebody", int(time.time()) + 100)
        auth.awake.set()
        assert (await asking).code == "session_ended"


async def test_a_cap_that_has_passed(root: Path, path: Path, auth: FakeAuth) -> None:
    async with serving(root, path) as edge:
        viewer = Viewer(edge, auth)
        auth.extra = {"cap": int(time.time()) - 1}
        assert (await viewer.ask()).code == "session_ended"


async def test_one_by_one_while_the_feed_is_old(root: Path, path: Path, auth: FakeAuth) -> None:
    auth.seconds = 0.5
    async with serving(root, path, **SHORT) as edge:
        edge.node.feed.hear({**Freshness(1.0).message(), "read": None})
        assert edge.node.feed.stale
        viewers = [Viewer(edge, auth) for _ in range(5)]
        assert {answer.status for answer in await asyncio.gather(*(viewer.ask() for viewer in viewers))} == {200}
        while len(auth.extended) < 5:
            await asyncio.sleep(0.02)
        assert all(len(call["ask"]) + len(call["extend"]) == 1 and call["fresh"] for call in auth.calls)


async def test_without_sessions_nobody_is_asked(root: Path, path: Path, auth: FakeAuth) -> None:
    given = settings()
    assert given.tokens.without_session
    async with running(Folder(root), given, verifier=Verifier([gated.KEY.verifying()]), auth=str(path)) as edge:
        assert (await Viewer(edge, None).ask()).status == 200
        assert not auth.calls


async def test_without_an_auth_role_there_are_no_sessions(root: Path) -> None:
    async with running(Folder(root), chosen(), verifier=Verifier([gated.KEY.verifying()])) as edge:
        answer = await Viewer(edge, None).ask()
        assert (answer.status, answer.code) == (503, "lease_unavailable")
        assert (await edge.ask("/api/v1/playback/session")).status == 404


@pytest.mark.parametrize(
    ("kind", "subject"), [*EVENTS, ("revoke.session", b""), ("revoke.key", gated.KEY.kid)], ids=lambda each: str(each)
)
async def test_answers_under_way(root: Path, path: Path, auth: FakeAuth, kind: EventType, subject: bytes) -> None:
    """aiohttp's are cut as well, and count as a use while they go on."""
    async with serving(root, path) as edge:
        viewer = Viewer(edge, auth)
        assert (await viewer.ask()).status == 200
        leasing = edge.node.leasing
        token = edge.node.gate.verifier.read(viewer.token)
        lease = await leasing.hold(token, "gated", bytes([127, 0, 0, 1]), "path")
        cut, other = asyncio.Event(), asyncio.Event()
        with leasing.followed() as follow, leasing.followed() as of_another:
            follow(lease, token, cut.set)
            of_another(leasing.table.free, edge.node.gate.verifier.read(Viewer(edge, auth).token), other.set)
            lease.used = False
            while not lease.used:
                await asyncio.sleep(0.02)
            assert not cut.is_set()
            happen(edge, kind, subject or viewer.session)
            await cut.wait()
        assert other.is_set() == (kind == "revoke.key")


@pytest.mark.parametrize("end", ["token", "key", "removed", "deadline"])
async def test_answers_under_way_for_tokens_of_others(end: str) -> None:
    """They have no lease whose end would cut them."""
    issuer, now = es256(), int(time.time())
    verifier, revocations = Verifier([issuer.key.verifying()]), Revocations()
    text = issuer.token({4: now + 1000})
    verifier.remember(text, now + (2 if end == "deadline" else 1000))
    token = verifier.read(text)
    leasing = Leasing(chosen(), "", revocations, Telemetry(), lambda: False, verifier)
    await leasing.start()
    cut = asyncio.Event()
    with leasing.followed() as follow:
        leasing.keys_changed(frozenset({issuer.key.kid}))
        assert leasing._stands(leasing.table.free, token)
        follow(leasing.table.free, token, cut.set)
        if end == "removed":
            leasing.keys_changed(frozenset())
        elif end == "token":
            assert token.digest is not None
            revocations.apply(Event(1, "revoke.token", token.digest, now + 1000))
        elif end == "key":
            revocations.apply(Event(1, "revoke.key", token.kid, now + 1000))
        await cut.wait()
    await leasing.stop()


async def test_no_outage_is_longer_than_the_session(root: Path, path: Path, auth: FakeAuth) -> None:
    auth.seconds = 0.5
    cap = int(time.time()) + 2
    auth.extra = {"cap": cap}
    async with serving(root, path, **SHORT, auth_outage=60) as edge:
        viewer = Viewer(edge, auth)
        assert (await viewer.ask()).status == 200
        auth.status = 503
        while (await viewer.ask()).status == 200:
            assert time.time() < cap + 0.5
            await asyncio.sleep(0.02)
        assert time.time() > cap - 0.5


async def test_a_surprise_ends_nothing(
    root: Path, path: Path, auth: FakeAuth, monkeypatch: pytest.MonkeyPatch, logs: list[Any]
) -> None:
    """Whoever waits is answered, and the next one is asked for."""
    async with serving(root, path) as edge:
        viewer = Viewer(edge, auth)

        async def surprise(*_: Any, **__: Any) -> Any:
            raise RuntimeError("nobody thought of it")

        with monkeypatch.context() as patch:
            patch.setattr(edge.node.leasing, "_call", surprise)
            assert (await viewer.ask()).code == "lease_unavailable"
        assert (await viewer.ask()).status == 200
    assert "leases could not be asked for" in {each["event"] for each in logs}
