"""Playback tokens at a node with two workers: each of the two refuses and lets in alike, and neither looks before it knows."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from edge.authorize import NAME
from streamgate.access import tokens
from streamgate.storage.assets import discover, open_asset
from tests.edge.gated import KEY, assets, key_folder
from tests.edge.nodes import RunningNode, node, until

CHANGING = ("Date", "Server-Timing")
IMMUTABLE = "private, max-age=31536000, immutable"
Headers = Sequence[tuple[str, str]]


def mint(asset: str = "gated", **more: Any) -> str:
    return tokens.mint(KEY, **{"asset": asset, "session": os.urandom(16), "expires": int(time.time()) + 1000, **more})


def signed(claims: dict[int | str, Any]) -> str:
    base: dict[int | str, Any] = {1: "streamgate", 3: "local", 4: int(time.time()) + 1000, 7: os.urandom(16)}
    return tokens.sign(KEY, {**base, **claims})


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One open asset, ``free``, and one that is ``gated``."""
    return assets(tmp_path_factory.mktemp("gates"))


@pytest.fixture(scope="module")
def names(library: Path) -> list[str]:
    """Paths of every kind below an asset."""
    made = next(open_asset(ref) for ref in discover(library) if ref.id == "gated").presentation
    video, pair = made.video[0].name, next(iter(made.ts_variants))
    leaves = ("index.m3u8", "iframes.m3u8", "init.mp4", "0.m4s", "k0.m4s")
    return ["main.m3u8", "main.mpd", *(f"{video}/{leaf}" for leaf in leaves), f"{pair}/0.ts"]


@pytest.fixture(scope="module")
def running(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    data = tmp_path_factory.mktemp("node")
    log = {"access": True, "access_file": str(data / "access.log"), "level": "debug"}
    with node(library, data / "data", tokens={"keys": str(key_folder(data))}, log=log) as started:
        yield started


@pytest.fixture
def both(running: RunningNode) -> Iterator[list[HTTPConnection]]:
    """A connection to each worker."""
    with running.each_worker() as connections:
        assert len(connections) == 2
        yield connections


class Told:
    """An answer."""

    def __init__(self, connection: HTTPConnection, path: str, headers: Headers = (), method: str = "GET") -> None:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        self.status, self.headers, self.body = answer.status, answer.headers, answer.read()

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["code"]) if self.status >= 400 else ""

    @property
    def whole(self) -> tuple[int, bytes, list[tuple[str, str]]]:
        return self.status, self.body, [(k, v) for k, v in self.headers.items() if k not in CHANGING]


def ask(both: list[HTTPConnection], path: str, headers: Headers = ()) -> Told:
    """What both workers tell, which is the same."""
    first, second = (Told(connection, path, headers) for connection in both)
    assert (first.status, first.code) == (second.status, second.code), path
    return first


def test_without_a_token_nobody_learns_or_costs_anything(
    running: RunningNode, both: list[HTTPConnection], library: Path, names: list[str]
) -> None:
    """One 401 for what is there, what is not, and what cannot be: no tier was asked, and no source opened."""
    assert ask(both, "/v/free/main.mpd").status == 200
    before = looked(running)
    first = Told(both[0], "/v/gated/main.m3u8")
    assert (first.status, first.code, first.headers["Cache-Control"]) == (401, "token_required", "no-store")
    assert first.headers["WWW-Authenticate"] == NAME
    strange = (
        "/v/gated/none",
        "/v/gated",
        "/v/nobody",
        "/v/",
        "/v/~",
        "/v/gated/9/9/9",
        "/v/+/main.mpd",
        f"/v/{'x' * 70}/a",
    )
    for path in (*(f"/v/{asset}/{name}" for asset in ("gated", "nobody") for name in names), *strange):
        for connection in both:
            assert Told(connection, path).whole == first.whole, path
    assert looked(running) == before
    film = library / "gated/film.mp4"
    assert not any(holds(pid, film) for pid in running.workers())
    token = mint()
    assert ask(both, f"/t/{token}/v/gated/main.mpd").status == 200
    # What would have been seen if they had looked.
    assert looked(running) > before and all(holds(pid, film) for pid in running.workers())


def looked(running: RunningNode) -> tuple[float, float]:
    """Look-ups and flights."""
    return running.total("cache_lookups_total"), running.total("fills_total")


def holds(pid: int, path: Path) -> bool:
    """Whether a process has the file open."""
    return any(os.path.realpath(f"/proc/{pid}/fd/{number}") == str(path) for number in os.listdir(f"/proc/{pid}/fd"))


def test_only_a_token_that_covers_the_path_hears_that_there_is_nothing(both: list[HTTPConnection]) -> None:
    ours, unknown = mint(), mint("nobody")
    for path, status, code in (
        (f"/t/{ours}/v/gated/none", 404, "not_found"),
        (f"/t/{ours}/v/gated/v540-0123456789abcdef/0.m4s", 410, "rendition_gone"),
        (f"/t/{unknown}/v/nobody/main.mpd", 404, "asset_not_found"),
        (f"/t/{unknown}/v/nobody/none", 404, "not_found"),
        (f"/t/{ours}/v/nobody/main.mpd", 403, "token_path"),
        (f"/t/{unknown}/v/gated/main.mpd", 403, "token_path"),
        (f"/t/{ours}/v/", 403, "token_path"),
        ("/v/nobody/main.mpd", 401, "token_required"),
        ("/v/free/none", 404, "not_found"),
    ):
        told = ask(both, path)
        assert (told.status, told.code, told.headers["Cache-Control"]) == (status, code, "no-store"), path


def test_every_carriage(both: list[HTTPConnection], names: list[str]) -> None:
    """Also again and again, when what is asked for is in memory and the kernel of the hot path answers."""
    token, segment = mint(), names[5]
    bodies = set()
    for _ in range(3):
        for path, headers in (
            (f"/t/{token}/v/gated/{segment}", []),
            (f"/v/gated/{segment}", [(NAME, token)]),
            (f"/v/gated/{segment}", [(NAME.lower(), f" {token} ")]),
            (f"/v/gated/{segment}?CMCD=bl%3D1&{NAME}={token}", []),
            (f"/v/gated/{segment}", [("Cookie", f"a=b; {NAME}={token}; c=d")]),
            (f"/t/{token}/v/gated/{segment}?{NAME}={token}", [(NAME, token), ("Cookie", f"{NAME}={token}")]),
        ):
            told = ask(both, path, headers)
            assert (told.status, told.headers["Cache-Control"]) == (200, IMMUTABLE), path
            bodies.add(told.body)
    assert len(bodies) == 1


def test_server_timing_of_a_path_with_a_token(running: RunningNode, names: list[str]) -> None:
    """The phases on the first way, which is each worker's own, one number on the native one, and how far a refused one came."""
    path = f"/v/gated/{next(name for name in names if name.endswith('iframes.m3u8'))}"
    phases = ["parse", "authorize", "key", "lookup", "resolve", "store"]
    for asked, headers, expected in (
        (f"/t/{mint()}{path}", (), phases),
        (f"/t/{mint()}{path}", (), ["native"]),
        (path, ((NAME, mint()),), ["native"]),
        (f"/t/{mint()}/v/gated/none", (), ["parse", "authorize"]),
        (f"/t/{mint('other')}{path}", (), ["parse", "authorize"]),
        (path, (), ["parse", "authorize"]),
    ):
        # On connections of their own: behind what the other way answers, the native one waits until that is all done.
        with running.each_worker() as both:
            fields = [Told(connection, asked, headers).headers["Server-Timing"] for connection in both]
        form = re.compile(", ".join(rf"{name};dur=[0-9]+\.[0-9]{{2,3}}" for name in expected))
        assert len(fields) == 2 and all(map(form.fullmatch, fields)), (asked, fields)


def test_two_tokens_are_none(both: list[HTTPConnection]) -> None:
    good, other = mint(), mint()
    for path, headers in (
        (f"/t/{good}/v/gated/main.mpd", [(NAME, other)]),
        ("/t/x/v/gated/main.mpd", [(NAME, good)]),
        (f"/v/gated/main.mpd?{NAME}={other}", [(NAME, good)]),
        ("/v/gated/main.mpd", [(NAME, good), ("Cookie", f"{NAME}={other}")]),
        ("/v/gated/main.mpd", [(NAME, good), (NAME, other)]),
    ):
        told = ask(both, path, headers)
        assert (told.status, told.code) == (400, "token_ambiguous"), path


def test_a_playlist_asked_for_with_a_query_moves_into_the_path(both: list[HTTPConnection]) -> None:
    token = mint()
    told = ask(both, f"/v/gated/main.m3u8?a=1&{NAME}={token}&CMCD=sid%3D%22x%22")
    assert (told.status, told.headers["Cache-Control"]) == (302, "no-store")
    assert told.headers["Location"] == f"/t/{token}/v/gated/main.m3u8?a=1&CMCD=sid%3D%22x%22"
    assert ask(both, told.headers["Location"]).status == 200
    assert ask(both, f"/v/gated/main.m3u8?{NAME}=x").code == "token_malformed"


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
        ({4: "x"}, (401, "token_malformed")),
    ],
)
def test_refusals(both: list[HTTPConnection], claims: dict[int | str, Any], expected: tuple[int, str]) -> None:
    token = signed(claims)
    for path, headers in ((f"/t/{token}/v/gated/main.mpd", []), ("/v/gated/main.mpd", [(NAME, token)])):
        told = ask(both, path, headers)
        assert (told.status, told.code, told.headers["Cache-Control"]) == (*expected, "no-store")
        assert token.encode() not in told.body


def test_a_revocation_counts_on_connections_that_were_let_in(
    running: RunningNode, both: list[HTTPConnection], names: list[str]
) -> None:
    revoked, other = os.urandom(16), mint()
    token, again = mint(session=revoked), mint(session=revoked, counter=b"1")
    paths = [f"/v/gated/{name}" for name in ("main.mpd", names[5])]
    for path in paths:
        for carried in ((f"/t/{token}{path}", ()), (path, ((NAME, token),)), (f"/t/{other}{path}", ())):
            assert ask(both, *carried).status == 200
    assert running.admin("POST", "/revocations", {"session": revoked.hex(), "exp": int(time.time()) + 2000})[0] == 204
    for path in paths:
        for each in (token, again):
            for carried in ((f"/t/{each}{path}", ()), (path, ((NAME, each),))):
                told = ask(both, *carried)
                assert (told.status, told.code) == (401, "token_revoked")
        assert ask(both, f"/t/{other}{path}").status == 200


def test_no_token_in_any_log_or_metric(running: RunningNode, both: list[HTTPConnection]) -> None:
    session = os.urandom(16)
    good, bad = mint(session=session), mint()[:-8] + "AAAAAAAA"
    file = running.data.parent / "access.log"
    for token in (good, bad):
        for path, headers in (
            (f"/t/{token}/v/gated/main.mpd", []),
            (f"/t/{token}/v/gated/none", []),
            (f"/v/gated/main.mpd?{NAME}={token}", []),
            ("/v/gated/main.mpd", [(NAME, token)]),
            ("/v/gated/main.mpd", [("Cookie", f"{NAME}={token}")]),
            ("/v/gated/main.mpd", [("Referer", f"http://x/t/{token}/v/gated/main.m3u8")]),
        ):
            ask(both, path, headers)
    shown = f"/t/~{session[:4].hex()}/v/gated/main.mpd"
    until(
        lambda: file.read_text().count(shown) == 2 and file.read_text().count("/t/~/v/gated/none") == 2,
        "both workers' lines",
    )
    everything = file.read_text() + running.log.read_text() + json.dumps(running.counters())
    for token in (good, bad):
        assert token[20:60] not in everything
