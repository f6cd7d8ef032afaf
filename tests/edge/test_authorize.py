"""Nobody sees a gated asset without a token for it: where tokens are looked for, what is answered, and what nobody hears."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, MutableMapping
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from edge.authorize import NAME, Asked
from streamgate.access import tokens
from streamgate.access.keys import SharedKey
from streamgate.core.settings import LogSettings
from streamgate.errors import StreamGateError
from streamgate.native.cat import Token, Verifier
from streamgate.storage.assets import open_asset
from streamgate.storage.discovery import discover
from tests.edge.gated import DESCRIBED, KEY, assets
from tests.edge.harness import Answer, Edge, Folder, running, settings

SESSION = bytes(range(200, 216))
CHANGING = ("Date", "Server-Timing")


def mint(asset: str = "gated", key: SharedKey = KEY, **more: Any) -> str:
    given: dict[str, Any] = {"session": SESSION, "expires": int(time.time()) + 1000, **more}
    return tokens.mint(key, asset=asset, **given)


def signed(claims: dict[int | str, Any]) -> str:
    base: dict[int | str, Any] = {1: "streamgate", 3: "local", 4: int(time.time()) + 1000, 7: SESSION}
    return tokens.sign(KEY, {**base, **claims})


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One open asset, ``free``, and one that is ``gated``."""
    return assets(tmp_path_factory.mktemp("gates"))


@pytest.fixture(scope="module")
def names(library: Path) -> list[str]:
    """Paths of every kind below an asset."""
    [ref] = [ref for ref in discover(library) if ref.id == "gated"]
    made = open_asset(ref).presentation
    video, pair = made.video[0].name, next(iter(made.ts_variants))
    return ["main.m3u8", "main-ts.m3u8", "main.mpd"] + [
        f"{video}/{leaf}" for leaf in ("index.m3u8", "iframes.m3u8", "init.mp4", "0.m4s", "k0.m4s")
    ] + [f"{pair}/index.m3u8", f"{pair}/0.ts"]  # fmt: skip


@pytest.fixture
def shelf(library: Path) -> Folder:
    return Folder(library)


@pytest.fixture
async def gates(shelf: Folder) -> AsyncIterator[Edge]:
    async with running(shelf, verifier=Verifier([KEY.verifying()])) as edge:
        yield edge


def told(answer: Answer) -> tuple[int, bytes, dict[str, str]]:
    return answer.status, answer.body, {k: v for k, v in answer.headers.items() if k not in CHANGING}


async def test_an_open_asset_needs_no_token(gates: Edge, names: list[str]) -> None:
    token = mint("free")
    for name in names[:3]:
        answer = await gates.ask(f"/v/free/{name}")
        assert answer.status == 200
        assert answer.headers["Cache-Control"].startswith("public, ")
        for path, headers in (
            (f"/t/{token}/v/free/{name}", {}),
            ("/t/x/v/free/main.mpd", {}),
            (f"/v/free/{name}", {NAME: "x"}),
        ):
            beside = await gates.ask(path, headers)
            assert (beside.status, beside.headers["Cache-Control"].split(",")[0]) == (200, "public")


async def test_without_a_token_all_other_ids_get_the_same_answer(gates: Edge, shelf: Folder, names: list[str]) -> None:
    await gates.ask("/v/free/main.mpd")
    opened, lookups = list(shelf.opened), gates.node.telemetry.value("cache_lookups", result="miss")
    first = told(await gates.ask("/v/gated/main.m3u8"))
    assert first[0] == 401
    assert first[2]["Cache-Control"] == "no-store"
    assert first[2]["WWW-Authenticate"] == NAME
    for path in (
        *(f"/v/gated/{name}" for name in names),
        *(f"/v/nobody/{name}" for name in names),
        "/v/gated/none", "/v/gated", "/v/nobody", "/v/", "/v/~", "/v/gated/9/9/9", "/v/+/main.mpd", f"/v/{'x' * 70}/main.mpd",
        "/v/gated/v540-0123456789abcdef/0.m4s",
    ):  # fmt: skip
        assert told(await gates.ask(path)) == first, path
    assert shelf.opened == opened
    assert gates.node.telemetry.value("cache_lookups", result="miss") == lookups


async def test_a_token_opens_its_asset_privately(gates: Edge, names: list[str]) -> None:
    token = mint()
    for name in names:
        answer = await gates.ask(f"/t/{token}/v/gated/{name}")
        assert answer.status == 200, name
        below = "/" in name
        assert answer.headers["Cache-Control"] == (
            "private, max-age=31536000, immutable" if below else "private, max-age=2"
        )
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert token.encode() not in answer.body
        tag = answer.headers["ETag"]
        again = await gates.ask(f"/t/{token}/v/gated/{name}", {"If-None-Match": tag})
        assert (again.status, again.headers["Cache-Control"]) == (304, answer.headers["Cache-Control"])
        part = await gates.ask(f"/t/{token}/v/gated/{name}", {"Range": "bytes=0-0"})
        assert (part.status, part.body) == (206, answer.body[:1])
        head = await gates.ask(f"/t/{token}/v/gated/{name}", method="HEAD")
        assert (head.status, head.headers["Content-Length"]) == (200, str(len(answer.body)))


async def test_all_tokens_share_what_is_kept(gates: Edge, names: list[str]) -> None:
    first = await gates.ask(f"/t/{mint()}/v/gated/{names[5]}")
    hits = gates.node.telemetry.value("cache_lookups", result="hit")
    second = await gates.ask(f"/t/{mint(session=bytes(16))}/v/gated/{names[5]}")
    assert (second.body, second.headers["ETag"]) == (first.body, first.headers["ETag"])
    assert gates.node.telemetry.value("cache_lookups", result="hit") >= hits


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({4: 1_000_000_000}, (401, "token_expired")),
        ({5: 4_000_000_000}, (401, "token_not_yet_valid")),
        ({1: "other"}, (401, "token_issuer")),
        ({3: "other"}, (401, "token_audience")),
        ({312: {3: {1: "/v/other/"}}}, (403, "token_path")),
        ({313: ["POST"]}, (403, "token_method")),
        ({316: ["DE"]}, (403, "token_unsupported")),
        ({41: [{312: {3: {1: "/v/other/"}}}]}, (403, "token_condition")),
        ({4: "x"}, (401, "token_malformed")),
    ],
)
async def test_refusals(gates: Edge, claims: dict[int | str, Any], expected: tuple[int, str]) -> None:
    token = signed(claims)
    for carried in (gates.ask(f"/t/{token}/v/gated/main.mpd"), gates.ask("/v/gated/main.mpd", {NAME: token})):
        answer = await carried
        assert (answer.status, answer.code) == expected
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert token.encode() not in answer.body
        # 401: where another is to be had; 403: why not with this one.
        told, challenge = answer.json(), answer.headers.get("WWW-Authenticate")
        renew = "/api/v1/playback/renew" if expected[0] == 401 else None
        assert (told.get("renew"), challenge) == (renew, f'{NAME} renew="{renew}"' if renew else None)
        assert told["title"]


async def test_networks(gates: Edge) -> None:
    here, elsewhere = mint(networks=[ip_network("127.0.0.0/8")]), mint(networks=[ip_network("192.0.2.0/24")])
    assert (await gates.ask(f"/t/{here}/v/gated/main.mpd")).status == 200
    assert (await gates.ask(f"/t/{elsewhere}/v/gated/main.mpd")).code == "token_network"


@pytest.mark.parametrize(
    ("trusted", "headers", "expected"),
    [
        ((), {"X-Forwarded-For": "192.0.2.7"}, "token_network"),
        (("127.0.0.0/8",), {"X-Forwarded-For": "192.0.2.7"}, ""),
        (("127.0.0.0/8",), {"X-Forwarded-For": "192.0.2.7, 198.51.100.1"}, "token_network"),
        (("127.0.0.0/8",), {"Forwarded": 'for="192.0.2.7:4711"'}, ""),
        (("127.0.0.0/8",), {}, "token_network"),
    ],
)
async def test_networks_behind_a_proxy(
    shelf: Folder, trusted: tuple[str, ...], headers: dict[str, str], expected: str
) -> None:
    chosen = settings(server={"trusted_proxies": trusted})
    async with running(shelf, chosen, verifier=Verifier([KEY.verifying()])) as edge:
        token = mint(networks=[ip_network("192.0.2.0/24")])
        answer = await edge.ask(f"/t/{token}/v/gated/main.mpd", headers)
        assert (answer.code if answer.status >= 400 else "") == expected
        secure = signed({312: {0: {0: "https"}}})
        told = await edge.ask(f"/t/{secure}/v/gated/main.mpd", {**headers, "X-Forwarded-Proto": "https"})
        assert told.status == (200 if trusted else 403)


class TestCarriers:
    async def test_each_one(self, gates: Edge, names: list[str]) -> None:
        token, segment = mint(), names[6]
        for path, headers in (
            (f"/t/{token}/v/gated/{segment}", {}),
            (f"/v/gated/{segment}", {NAME: token}),
            (f"/v/gated/{segment}", {NAME.lower(): f" {token} "}),
            (f"/v/gated/{segment}?{NAME}={token}", {}),
            (f"/v/gated/{segment}?CMCD=bl%3D1&{NAME}={token}", {}),
            (f"/v/gated/{segment}", {"Cookie": f"a=b; {NAME}={token}; c=d"}),
            (f"/v/gated/{segment}", {"Cookie": f'{NAME}="{token}"'}),
        ):
            answer = await gates.ask(path, headers)
            assert (answer.status, answer.headers["Cache-Control"]) == (200, "private, max-age=31536000, immutable"), (
                path
            )

    async def test_the_same_twice_is_one(self, gates: Edge) -> None:
        token = mint()
        every = {NAME: token, "Cookie": f"{NAME}={token}"}
        assert (await gates.ask(f"/t/{token}/v/gated/main.mpd?{NAME}={token}", every)).status == 200

    async def test_two_are_none_and_there_is_no_falling_through(self, gates: Edge) -> None:
        good, other = mint(), mint(session=bytes(16))
        for path, headers in (
            (f"/t/{good}/v/gated/main.mpd", {NAME: other}),
            ("/t/x/v/gated/main.mpd", {NAME: good}),
            (f"/v/gated/main.mpd?{NAME}={other}", {NAME: good}),
            (f"/v/gated/main.mpd?{NAME}={other}&{NAME}={good}", {}),
            ("/v/gated/main.mpd", {NAME: good, "Cookie": f"{NAME}={other}"}),
            ("/v/gated/main.mpd", {"Cookie": f"{NAME}={other}; {NAME}={good}"}),
            ("/v/gated/main.mpd", {NAME: good, "Cookie": f"{NAME}="}),
        ):
            answer = await gates.ask(path, headers)
            assert (answer.status, answer.code) == (400, "token_ambiguous"), path
        twice = CIMultiDict([(NAME, good), (NAME, other)])
        assert (await gates.ask("/v/gated/main.mpd", twice)).code == "token_ambiguous"
        assert (await gates.ask("/v/gated/main.mpd", {NAME: ""})).code == "token_malformed"

    async def test_a_playlist_asked_for_with_a_query_moves_into_the_path(self, gates: Edge, names: list[str]) -> None:
        token = mint()
        for name in (name for name in names if name.endswith((".m3u8", ".mpd"))):
            answer = await gates.ask(f"/v/gated/{name}?a=1&{NAME}={token}&CMCD=sid%3D%22x%22")
            assert answer.status == 302
            assert answer.headers["Location"] == f"/t/{token}/v/gated/{name}?a=1&CMCD=sid%3D%22x%22"
            assert answer.headers["Cache-Control"] == "no-store"
            assert (await gates.ask(answer.headers["Location"])).status == 200
        bare = await gates.ask(f"/v/gated/main.mpd?{NAME}={token}")
        assert bare.headers["Location"] == f"/t/{token}/v/gated/main.mpd"

    async def test_nothing_moves_without_a_right(self, gates: Edge) -> None:
        assert (await gates.ask(f"/v/gated/main.mpd?{NAME}=x")).code == "token_malformed"
        assert (await gates.ask(f"/v/gated/main.mpd?{NAME}={mint('free')}")).code == "token_path"
        assert (await gates.ask(f"/v/free/main.mpd?{NAME}=x")).status == 200


@pytest.mark.parametrize(
    "path",
    ["/t/{}/t/{}/v/gated/main.mpd", "/t/{}//v/gated/main.mpd", "/t//v/gated/main.mpd", "/t/{}", "/t/{}/", "/t/{}/assets.json",
     "/t/{}/v/../v/gated/main.mpd", "/t/{}/v/gated%2Fmain.mpd", "/t/{}/v/g%61ted/main.mpd", "/%74/{}/v/gated/main.mpd",
     "//t/{}/v/gated/main.mpd", "/t/{}/v/gated\\main.mpd", "/t/{}/v/gated/./main.mpd", "/t/{}/v/gated/%00", "/t/{}?/v/gated/main.mpd"],
)  # fmt: skip
async def test_a_path_has_one_spelling(gates: Edge, path: str) -> None:
    token = mint()
    target = path.replace("{}", token).encode()
    answer = await gates.raw(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (answer.status, answer.code) == (400, "path_malformed")
    assert token.encode() not in answer.body


async def test_only_who_may_see_an_asset_hears_that_something_is_not_there(gates: Edge) -> None:
    ours, unknown = mint(), mint("nobody")
    for path, status, code in (
        (f"/t/{ours}/v/gated/none", 404, "not_found"),
        (f"/t/{ours}/v/gated/v540-0123456789abcdef/0.m4s", 410, "rendition_gone"),
        (f"/t/{unknown}/v/nobody/main.mpd", 404, "asset_not_found"),
        (f"/t/{unknown}/v/nobody/none", 404, "not_found"),
        (f"/t/{ours}/v/nobody/main.mpd", 403, "token_path"),
        (f"/t/{unknown}/v/gated/main.mpd", 403, "token_path"),
        (f"/t/{ours}/v/", 403, "token_path"),
        (f"/t/{ours}/v/gated", 403, "token_path"),
        ("/v/free/none", 404, "not_found"),
    ):
        answer = await gates.ask(path)
        assert (answer.status, answer.code) == (status, code), path
        assert answer.headers["Cache-Control"] == "no-store"


async def test_a_preflight_needs_no_token(gates: Edge) -> None:
    answer = await gates.ask("/v/gated/main.mpd", {"Origin": "https://player.example"}, method="OPTIONS")
    assert answer.status == 204
    assert NAME in answer.headers["Access-Control-Allow-Headers"]


async def test_strangers_are_told_of_open_assets_only(shelf: Folder, gates: Edge) -> None:
    assert [(asset["id"], asset["gated"]) for asset in (await gates.ask("/assets.json")).json()["assets"]] == [
        ("free", False)
    ]
    async with running(shelf, settings(list_gated=True)) as edge:
        listed = (await edge.ask("/assets.json")).json()["assets"]
        assert [(asset["id"], asset["gated"]) for asset in listed] == [("free", False), ("gated", True)]


async def test_a_setting_closes_all(shelf: Folder) -> None:
    async with running(shelf, settings(require_token=True), verifier=Verifier([KEY.verifying()])) as edge:
        assert (await edge.ask("/v/free/main.mpd")).code == "token_required"
        answer = await edge.ask(f"/t/{mint('free')}/v/free/main.mpd")
        assert (answer.status, answer.headers["Cache-Control"]) == (200, "private, max-age=2")
        assert (await edge.ask("/assets.json")).json() == {"assets": []}


async def test_revocation_counts_at_once(gates: Edge) -> None:
    path = f"/t/{mint()}/v/gated/main.mpd"
    assert (await gates.ask(path)).status == 200
    gates.node.gate.verifier.revoke_session(SESSION, int(time.time()) + 2000)
    answer = await gates.ask(path)
    assert (answer.status, answer.code) == (401, "token_revoked")
    assert (await gates.ask(f"/t/{mint(counter=b'1')}/v/gated/main.mpd")).code == "token_revoked"
    assert (await gates.ask(f"/t/{mint(session=bytes(16))}/v/gated/main.mpd")).status == 200


async def test_no_token_in_any_log(shelf: Folder, logs: list[MutableMapping[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "access.log"
    chosen = settings().model_copy(update={"log": LogSettings(access=True, access_file=str(file), level="info")})
    async with running(shelf, chosen, verifier=Verifier([KEY.verifying()])) as edge:
        good, bad = mint(), mint(key=replace(KEY, secret=bytes(32)))
        for token in (good, bad):
            for path, headers in (
                (f"/t/{token}/v/gated/main.mpd", {}),
                (f"/t/{token}/v/gated/none", {}),
                (f"/t/{token}/t/{token}/v/gated/main.mpd", {}),
                (f"/v/gated/main.mpd?{NAME}={token}", {}),
                ("/v/gated/main.mpd", {NAME: token}),
                ("/v/gated/main.mpd", {"Cookie": f"{NAME}={token}"}),
                ("/v/gated/main.mpd", {"Referer": f"http://x/t/{token}/v/gated/main.m3u8"}),
            ):
                await edge.ask(path, headers)
        metrics = (await edge.ask("/metrics")).body
    lines = file.read_text()
    shown = [json.loads(line)["path"] for line in lines.splitlines()]
    assert f"/t/~{SESSION[:4].hex()}/v/gated/main.mpd" in shown
    assert f"/t/~{SESSION[:4].hex()}/v/gated/none" in shown
    assert "/t/~/v/gated/main.mpd" in shown
    for token in (good, bad):
        assert token[20:60] not in lines
        assert all(token[20:60] not in str(line) for line in logs)
        assert token[20:60].encode() not in metrics


class TestSlowChecks:
    GERMAN: dict[int | str, Any] = {316: ["DE"], 312: {3: {1: "/v/gated/"}}}

    async def test_it_may_answer_later_without_holding_up_anybody(self, gates: Edge) -> None:
        seen: list[tuple[bytes, Asked]] = []
        asked_for, decided = asyncio.Semaphore(0), asyncio.Event()

        async def look_up(token: Token, asked: Asked) -> None:
            seen.append((token.session, asked))
            asked_for.release()
            await decided.wait()

        gates.node.gate.slow = look_up
        waiting = [asyncio.create_task(gates.ask(f"/t/{signed(self.GERMAN)}/v/gated/main.mpd")) for _ in range(5)]
        for _ in range(5):
            await asked_for.acquire()
        assert (await gates.ask(f"/t/{mint()}/v/gated/main.mpd")).status == 200
        assert not any(task.done() for task in waiting)
        decided.set()
        assert [answer.status for answer in await asyncio.gather(*waiting)] == [200] * 5
        session, asked = seen[0]
        assert (session, asked.path, asked.address, asked.method) == (
            SESSION,
            "/v/gated/main.mpd",
            bytes((127, 0, 0, 1)),
            "GET",
        )

    async def test_it_is_not_asked_where_a_claim_says_no(self, gates: Edge) -> None:
        async def never(token: Token, asked: Asked) -> None:
            raise AssertionError("asked")

        gates.node.gate.slow = never
        assert (await gates.ask(f"/t/{signed(self.GERMAN)}/v/free2/main.mpd")).code == "token_path"
        assert (await gates.ask(f"/t/{signed({**self.GERMAN, 4: 1})}/v/gated/main.mpd")).code == "token_expired"

    async def test_its_refusal_counts(self, gates: Edge) -> None:
        async def refuse(token: Token, asked: Asked) -> None:
            raise StreamGateError("token_condition")

        gates.node.gate.slow = refuse
        answer = await gates.ask(f"/t/{signed(self.GERMAN)}/v/gated/main.mpd")
        assert (answer.status, answer.code) == (403, "token_condition")

    async def test_a_failure_of_it_opens_nothing(self, gates: Edge) -> None:
        async def fail(token: Token, asked: Asked) -> None:
            raise OSError("the database is gone")

        gates.node.gate.slow = fail
        answer = await gates.ask(f"/t/{signed(self.GERMAN)}/v/gated/main.mpd")
        assert (answer.status, answer.code) == (500, "internal")

    async def test_it_is_bounded_in_time_and_number(self, shelf: Folder) -> None:
        chosen = settings(authorize_timeout=0.2, max_authorizing=2)
        started = asyncio.Semaphore(0)

        async def stuck(token: Token, asked: Asked) -> None:
            started.release()
            await asyncio.Event().wait()

        async with running(shelf, chosen, verifier=Verifier([KEY.verifying()])) as edge:
            edge.node.gate.slow = stuck
            path = f"/t/{signed(self.GERMAN)}/v/gated/main.mpd"
            waiting = [asyncio.create_task(edge.ask(path)) for _ in range(2)]
            for _ in range(2):
                await started.acquire()
            refused = await edge.ask(path)
            assert (refused.status, refused.code) == (503, "overloaded")
            assert "too many" in refused.json()["detail"]
            late = await asyncio.gather(*waiting)
            assert {(answer.status, answer.code) for answer in late} == {(503, "overloaded")}
            assert all("too long" in answer.json()["detail"] for answer in late)


async def test_what_asset_toml_says_counts_soon(library: Path, names: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "film"
    folder.mkdir()
    (folder / "film.mp4").write_bytes((library / "free.mp4").read_bytes())
    described = folder / "asset.toml"
    described.write_text(DESCRIBED)
    shelf = Folder(tmp_path)
    async with running(shelf, settings(revalidate=0.1), verifier=Verifier([KEY.verifying()])) as edge:
        table, listed = edge.node.gate.open, asyncio.Event()
        renew = edge.node.assets.on_listing

        def listen(refs: Any) -> None:
            renew(refs)
            listed.set()

        async def becomes(asset: bytes, is_open: bool) -> None:
            async with asyncio.timeout(10):
                while (asset in table) != is_open:
                    listed.clear()
                    await listed.wait()

        edge.node.assets.on_listing = listen
        assert (await edge.ask("/v/film/main.mpd")).code == "token_required"
        described.write_text(DESCRIBED.replace("true", "false"))
        await becomes(b"film", True)
        segment = names[6]
        for leaf in ("main.mpd", segment):
            for _ in range(2):
                assert (await edge.ask(f"/v/film/{leaf}")).headers["Cache-Control"].startswith("public, ")
        described.write_text(DESCRIBED)
        await becomes(b"film", False)
        token = mint("film")
        for leaf in ("main.mpd", segment):
            assert (await edge.ask(f"/v/film/{leaf}")).code == "token_required"
            for _ in range(2):
                answer = await edge.ask(f"/t/{token}/v/film/{leaf}")
                assert (answer.status, answer.headers["Cache-Control"][:8]) == (200, "private,")
        assert edge.node.gate.open is table
        (tmp_path / "new.mp4").write_bytes((library / "free.mp4").read_bytes())
        await becomes(b"new", True)
        assert (await edge.ask("/v/new/main.mpd")).status == 200


async def test_what_cannot_be_listed_is_gated(library: Path, tmp_path: Path) -> None:
    class Broken(Folder):
        def discover(self) -> Any:
            raise StreamGateError("source_unreadable")

    class Failing(Folder):
        def discover(self) -> Any:
            raise RuntimeError("a mistake")

    async with running(Failing(library), verifier=Verifier([KEY.verifying()])) as edge:
        assert (await edge.ask("/v/free/main.mpd")).code == "token_required"
    async with running(Broken(library), verifier=Verifier([KEY.verifying()])) as edge:
        assert (await edge.ask("/v/free/main.mpd")).code == "token_required"
        assert (await edge.ask(f"/t/{mint('free')}/v/free/main.mpd")).code == "source_unreadable"
