"""What a token wants to be answered (catif), tokens that count once, and both over HTTP."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.conditions import Answered
from edge.geo import Atlas
from streamgate.access import tokens
from streamgate.access.conditional_answers import ConditionalAnswer, wanted
from streamgate.core.settings import ConditionSettings, GeoipSettings
from streamgate.native.cat import Verifier
from streamgate.storage.kv.sqlite import SqliteStore
from tests.edge.gated import KEY, assets
from tests.edge.harness import Edge, Folder, running, settings
from tests.edge.judging import Judge
from tests.geoip_factory import place, write
from tests.services.redis import RedisServer
from tests.token_factory import NOW, SESSION, Request, Tagged, signed

HOSTS = ("shop.example.com", "login.example.com:8443")
BEGIN = replace(Request(), path="/v/abc123/main.m3u8")
SOON = NOW + 600


class TestAnswers:
    @pytest.mark.parametrize(
        "entry, expected",
        [
            ([403], (403, {})),
            ([404, {}], (404, {})),
            ([404, {}, b"k1"], (404, {})),
            ([503, {"retry-after": "120"}], (503, {"Retry-After": "120"})),
            ([302, {"Location": "/login?to=%2Fv%2F"}], (302, {"Location": "/login?to=%2Fv%2F"})),
            ([307, {"location": "https://shop.example.com/buy"}], (307, {"Location": "https://shop.example.com/buy"})),
            (
                [303, {"Location": "https://LOGIN.example.com:8443/"}],
                (303, {"Location": "https://LOGIN.example.com:8443/"}),
            ),
        ],
    )
    def test_that_are_given(self, entry: Any, expected: tuple[int, dict[str, str]]) -> None:
        assert wanted({4: entry}, 4, HOSTS) == ConditionalAnswer(*expected)

    @pytest.mark.parametrize(
        "entry",
        [
            [], 403, [True], ["403"], [200], [204], [206], [301], [308], [304], [500], [100], [403, []], [403, {}, b"k1", 1],
            [302], [302, {}], [403, {"Location": "/login"}], [302, {"Location": "//evil.example/"}],
            [302, {"Location": "http://shop.example.com/"}], [302, {"Location": "https://evil.example/"}],
            [302, {"Location": "https://shop.example.com.evil.example/"}],
            [302, {"Location": "https://shop.example.com@evil.example/"}],
            [302, {"Location": "https://evil.example\\@shop.example.com/"}],
            [302, {"Location": "https://a@shop.example.com/"}],
            [302, {"Location": "https://shop.example.com:444/"}], [302, {"Location": "login"}],
            [302, {"Location": "/\\evil.example/"}], [302, {"Location": "/a\r\nSet-Cookie: a=b"}],
            [302, {"Location": "javascript:alert(1)"}], [302, {"Location": "/" + "x" * 512}], [302, {"Location": "https://["}],
            [302, {"Location": "/a b"}], [302, {"Location": "/é"}], [302, {"Location": ["/a", {4: 1}]}],
            [302, {"Location": "/a", "LOCATION": "/b"}],
            [403, {"Set-Cookie": "a=b"}], [403, {"CTA-Common-Access-Token": "x"}], [403, {"Cache-Control": "public"}],
            [302, {"Location": "/a", "Set-Cookie": "a=b"}], [403, {"Access-Control-Allow-Origin": "*"}], [403, {7: "x"}],
            [503, {"Retry-After": "-1"}], [503, {"Retry-After": "86401"}], [503, {"Retry-After": "²"}], [503, {"Retry-After": 5}],
        ],
    )  # fmt: skip
    def test_that_are_not_given(self, entry: Any) -> None:
        assert wanted({4: entry}, 4, HOSTS) is None
        assert wanted({4: entry}, 5, HOSTS) is wanted({}, 4, HOSTS) is wanted(None, 4, HOSTS) is None

    @pytest.mark.parametrize(
        "claims, request_, failing, code",
        [
            ({4: NOW - 30}, Request(), 4, "token_expired"),
            ({5: NOW + 90}, Request(), 5, "token_not_yet_valid"),
            ({313: ["POST"]}, Request(), 313, "token_method"),
            ({312: {3: {1: "/v/other/"}}}, Request(), 312, "token_path"),
            ({312: {3: {4: ["/v/other/.*"]}}}, Request(), 312, "token_path"),
            ({311: [Tagged(52, bytes(4))]}, Request(), 311, "token_network"),
            ({315: {"x": {0: ""}}}, Request(), 315, "token_header"),
            ({41: [{313: ["POST"]}]}, Request(), 41, "token_condition"),
            ({42: [{313: ["GET"]}]}, Request(), 42, "token_condition"),
            ({316: ["DE"]}, Request(), 316, "token_unsupported"),
        ],
    )
    async def test_belong_to_the_claim_that_fails(
        self, claims: dict[int | str, Any], request_: Request, failing: int, code: str
    ) -> None:
        judge = Judge()
        error = await judge.refusal(signed({**claims, 322: {failing: [404]}}), request_)
        assert isinstance(error, Answered) and (error.code, error.status) == (code, 404)
        error = await judge.refusal(signed({**claims, 322: {failing + 1: [404]}}), request_)
        assert error is not None and not isinstance(error, Answered) and error.code == code

    async def test_are_for_tokens_with_a_right_mac_alone(self) -> None:
        token = signed({4: NOW - 30, 322: {4: [404]}})
        judge = Judge()
        for broken in (token[:-6] + "AAAAAA", signed({3: "elsewhere", 4: NOW - 30, 322: {3: [404], 4: [404]}})):
            error = await judge.refusal(broken)
            assert error is not None and not isinstance(error, Answered)


Judges = Callable[..., Judge]


@pytest.fixture
async def judges() -> AsyncIterator[Judges]:
    """Makes judges, whose stores are closed in the end."""
    made: list[Judge] = []

    def make(**given: Any) -> Judge:
        made.append(Judge(**given))
        return made[-1]

    yield make
    for judge in made:
        await judge.once.close()


class TestOnce:
    async def test_one_of_many_gets_it_and_nobody_after_a_restart(self, tmp_path: Path, judges: Judges) -> None:
        store = tmp_path / "state.sqlite"
        await (await SqliteStore.open(store)).close()
        workers = [judges(store=store), judges(store=store)]
        token = signed({308: 1, 4: SOON})
        errors = await asyncio.gather(*(judge.refusal(token, BEGIN) for judge in workers * 8))
        codes = [error.code if error else "accept" for error in errors]
        assert sorted(codes) == ["accept"] + ["token_replayed"] * 15
        for judge in workers:
            await judge.once.close()
        again = judges(store=store)
        other = replace(BEGIN, path="/v/abc123/main.mpd")
        for request in (BEGIN, other):
            error = await again.refusal(token, request)
            assert error is not None and (error.code, error.status) == ("token_replayed", 401)
        # The same use, however the token is written, and renewed; another session's use is another.
        assert (
            await again.refusal(signed({308: 1, 4: SOON}, unprotected=b"\xa2\x04\x42k1\x03\x00"), BEGIN)
        ) is not None
        assert await again.refusal(signed({308: 1, 4: SOON + 60, 7: SESSION + b"\x01"}), BEGIN) is not None
        assert await again.refusal(signed({308: 1, 4: SOON, 7: b"another session!"}), BEGIN) is None

    @pytest.mark.parametrize(
        "claims, path",
        [
            ({}, "/v/abc123/v540-00112233/7.m4s"),
            ({}, "/v/abc123/v540-00112233/main.m3u8"),
            ({}, "/v/main.m3u8"),
            ({4: NOW + 86_400}, BEGIN.path),
            ({308: 2}, BEGIN.path),
            ({308: 1, 41: [{308: 1}]}, BEGIN.path),
            ({319: b""}, BEGIN.path),
        ],
    )
    async def test_elsewhere_and_for_too_long_it_is_unsupported(
        self, tmp_path: Path, judges: Judges, claims: dict[int | str, Any], path: str
    ) -> None:
        judge = judges(store=tmp_path / "state.sqlite")
        error = await judge.refusal(signed({308: 1, 4: SOON, **claims}), replace(BEGIN, path=path))
        assert error is not None and error.code == "token_unsupported"
        assert await judge.refusal(signed({308: 1, 4: SOON}), BEGIN) is None, "it was not used up"

    async def test_without_a_shared_store_it_is_unsupported(self, judges: Judges) -> None:
        error = await judges().refusal(signed({308: 1, 4: SOON}), BEGIN)
        assert error is not None and error.code == "token_unsupported"

    async def test_who_is_refused_or_sent_on_has_not_used_it(self, tmp_path: Path, judges: Judges) -> None:
        judge = judges(store=tmp_path / "state.sqlite")
        token = signed({308: 1, 4: SOON, 315: {"x": {0: "y"}}})
        error = await judge.refusal(token, BEGIN)
        assert error is not None and error.code == "token_header"
        assert await judge.refusal(token, BEGIN, {"X": "y"}, carrier="query") is None
        assert await judge.refusal(token, BEGIN, {"X": "y"}, carrier="path") is None
        assert await judge.refusal(token, BEGIN, {"X": "y"}, carrier="path") is not None

    async def test_of_two_nodes_one_takes_it_and_keeps_what_redis_forgets(
        self, tmp_path: Path, own_redis: RedisServer, judges: Judges
    ) -> None:
        shared = own_redis.settings(timeout=2.0)
        nodes = [judges(store=tmp_path / f"{name}.sqlite", redis=shared, timeout=10.0) for name in "ab"]
        token = signed({308: 1, 4: SOON})
        errors = await asyncio.gather(*(judge.refusal(token, BEGIN) for judge in nodes * 4))
        assert sorted(error.code if error else "accept" for error in errors) == ["accept"] + ["token_replayed"] * 7
        here = nodes[errors.index(None) % 2]
        await asyncio.to_thread(own_redis.client.flushall)
        error = await here.refusal(token, BEGIN)
        assert error is not None and error.code == "token_replayed"
        await asyncio.to_thread(own_redis.kill)
        other = signed({308: 1, 4: SOON, 7: b"another session!"})
        error = await here.refusal(other, BEGIN)
        assert error is not None and error.status == 503
        await asyncio.to_thread(own_redis.start)
        async with asyncio.timeout(20):  # until the circuit closes again
            while (error := await here.refusal(other, BEGIN)) is not None:
                assert error.status == 503, error
                await asyncio.sleep(0.05)

    async def test_a_store_that_is_away_lets_nobody_in(self, tmp_path: Path, judges: Judges) -> None:
        store = tmp_path / "state.sqlite"
        judge = judges(store=tmp_path / "none" / "state.sqlite")
        (tmp_path / "none").write_text("no folder")
        error = await judge.refusal(signed({308: 1, 4: SOON}), BEGIN)
        assert error is not None and (error.code, error.status) == ("store_unavailable", 503)
        locked = judges(store=store, timeout=0.3)
        assert await locked.refusal(signed({308: 1, 4: SOON, 7: b"first"}), BEGIN) is None
        locking = sqlite3.connect(store, isolation_level=None)
        locking.execute("BEGIN EXCLUSIVE")
        error = await locked.refusal(signed({308: 1, 4: SOON}), BEGIN)
        assert error is not None and (error.code, error.status) == ("overloaded", 503)
        locking.execute("ROLLBACK")
        locking.close()


def minted(claims: dict[int | str, Any]) -> str:
    base: dict[int | str, Any] = {1: "streamgate", 3: "local", 4: int(time.time()) + 1000, 7: SESSION}
    return tokens.sign(KEY, {**base, **claims})


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return assets(tmp_path_factory.mktemp("conditions"))


@pytest.fixture
async def edge(library: Path, tmp_path: Path) -> AsyncIterator[Edge]:
    chosen = settings().model_copy(update={"conditions": ConditionSettings(redirect_hosts=("shop.example.com",))})
    async with running(Folder(library), chosen, verifier=Verifier([KEY.verifying()])) as made:
        made.node.once.path = tmp_path / "state.sqlite"
        yield made
        await made.node.once.close()


async def test_a_database_is_looked_at_while_the_node_runs(tmp_path: Path) -> None:
    path = write(tmp_path / "city.mmdb", {"203.0.113.0/24": place("DE")})
    atlas = await asyncio.to_thread(Atlas, GeoipSettings(country=str(path), interval=0.1))
    atlas.start()
    try:
        write(path, {"203.0.113.0/24": place("AT")})
        async with asyncio.timeout(10):
            while atlas.geo.place(Request().address).country != "AT":
                await asyncio.sleep(0.01)
    finally:
        await atlas.stop()


async def test_conditions_are_asked_for_each_request(edge: Edge) -> None:
    claims: dict[int | str, Any] = {312: {3: {4: ["/v/gated/.*"]}}, 315: {"x-player": {0: "a"}}}
    path = f"/t/{minted(claims)}/v/gated/main.mpd"
    for _ in range(3):  # what the memory holds by then is not served without asking
        assert (await edge.ask(path, {"X-Player": "a"})).status == 200
        refused = await edge.ask(path, {"X-Player": "b"})
        assert (refused.status, refused.code) == (403, "token_header")


async def test_an_answer_of_a_token_is_a_problem_that_nobody_keeps(edge: Edge) -> None:
    token = minted({4: 1000, 322: {4: [302, {"Location": "https://shop.example.com/renew", "Retry-After": "5"}]}})
    for _ in range(2):
        answer = await edge.ask(f"/t/{token}/v/gated/main.mpd", {"Origin": "https://player.example.com"})
        assert (answer.status, answer.headers["Location"]) == (302, "https://shop.example.com/renew")
        assert (answer.headers["Cache-Control"], answer.headers["Retry-After"]) == ("no-store", "5")
        assert "Set-Cookie" not in answer.headers and token not in str(answer.headers)
        told = json.loads(answer.body)
        assert (told["code"], told["status"]) == ("token_expired", 302)
    plain = await edge.ask(
        f"/t/{minted({4: 1000, 322: {4: [302, {'Location': 'https://x.example/'}]}})}/v/gated/main.mpd"
    )
    assert (plain.status, plain.code) == (401, "token_expired")


async def test_a_token_that_counts_once_begins_one_playback(edge: Edge) -> None:
    token = minted({308: 1})
    first = await edge.ask(f"/v/gated/main.m3u8?CTA-Common-Access-Token={token}")
    assert (first.status, first.headers["Location"]) == (302, f"/t/{token}/v/gated/main.m3u8")
    assert (await edge.ask(first.headers["Location"])).status == 200
    again = await edge.ask(first.headers["Location"])
    assert (again.status, again.code) == (401, "token_replayed")
