"""Caches in front of a node with sessions: no stranger gets a byte by them, whatever carried the token, and no renewal is stored."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from benchmarks.peers.process import Server
from tests.edge.nodes import WAIT_S, RunningNode, until
from tests.edge.test_caches_downstream import CACHES
from tests.scenarios import sessions

pytestmark = [pytest.mark.slow, pytest.mark.needs("nginx", "varnishd")]

TOKEN, COOKIE = "CTA-Common-Access-Token", "cta-common-access-token"
SHORT_S = 2


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    base = tmp_path_factory.mktemp("caches")
    root = sessions.films(tmp_path_factory.mktemp("films"), {"film": '[policy]\nkind = "allow"\n'})
    accounts = sessions.accounts(base / "accounts.toml", "ada")
    with sessions.with_auth(root, base / "data", accounts, tokens={"short_life": SHORT_S}) as started:
        yield started


@pytest.fixture(params=CACHES)
def cache(request: pytest.FixtureRequest, running: RunningNode) -> Iterator[Server]:
    with CACHES[request.param](running.port) as started:
        yield started


class Answer:
    """One request through the cache."""

    def __init__(self, cache: Server, path: str, method: str = "GET", body: str | None = None, **fields: str) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", cache.port, timeout=WAIT_S)) as connection:
            if body is not None:
                fields["Content-Type"] = "application/json"
            connection.request(method, path, body, fields)
            answer = connection.getresponse()
            self.status, self.headers, self.body = answer.status, answer.headers, answer.read()

    @property
    def renewed(self) -> str:
        """The token that it brings, in a header or a cookie; "" where there is none."""
        cookies = [each.partition(";")[0] for each in self.headers.get_all("Set-Cookie", [])]
        found = [each.partition("=")[2] for each in cookies if each.lower().startswith(f"{COOKIE}=")]
        return self.headers.get(TOKEN) or (found[0] if found else "")


def carried(carriage: str, token: str) -> tuple[str, dict[str, str]]:
    """What stands before /v/, and the fields."""
    if carriage == "path":
        return f"/t/{token}", {}
    return "", {TOKEN: token} if carriage == "header" else {"Cookie": f"{COOKIE}={token}"}


@pytest.mark.parametrize("carriage", ["path", "header", "cookie"])
def test_strangers_get_nothing(running: RunningNode, cache: Server, carriage: str) -> None:
    access = sessions.sign_in(running, "ada")["access_token"]
    told = sessions.start(running, "film", access, carriage)
    prefix, fields = carried(carriage, told["token"])
    opened = f"/t/{sessions.start(running, 'film', access)['token']}"
    names = sessions.objects(running, "film", opened)
    bodies = {}
    for name in names * 2:
        answer = Answer(cache, f"{prefix}/v/film/{name}", **fields)
        assert (answer.status, answer.headers["X-Cache"]) == (200, "MISS")
        assert answer.headers["Cache-Control"].startswith("private")
        bodies[name] = answer.body

    def stranger(**more: str) -> None:
        for name in names:
            answer = Answer(cache, f"/v/film/{name}", **more)
            assert answer.status == 401 and not answer.renewed and not gives_away(answer.body, bodies[name])

    stranger()
    stranger(Range="bytes=0-99")
    stranger(Cookie="another=1")
    stranger(**{TOKEN: told["token"][:-6] + "AAAAAA"})
    # By the API, too, and whatever it said to the holder of the token.
    for _ in range(2):
        again = Answer(cache, "/api/v1/playback/session", **{TOKEN: told["token"]})
        assert again.status == 200 and json.loads(again.body)["session"] == told["session"]
        assert Answer(cache, "/api/v1/playback/session").status == 401
    assert Answer(cache, "/api/v1/playback/session", "DELETE", **{TOKEN: told["token"]}).status == 204
    until(lambda: Answer(cache, f"{prefix}/v/film/{names[-1]}", **fields).status == 401, "its end", 2.0)
    for name in names:
        answer = Answer(cache, f"{prefix}/v/film/{name}", **fields)
        assert answer.status == 401 and not gives_away(answer.body, bodies[name])
    assert Answer(cache, f"{opened}/v/film/{names[-1]}").body == bodies[names[-1]]


def test_renewals_are_never_stored(running: RunningNode, cache: Server) -> None:
    """Two viewers, one with a header and one with a cookie: each gets tokens of its own session, by answers with media and by the
    API, and nobody else gets such an answer.
    """
    access = sessions.sign_in(running, "ada")["access_token"]
    carriages = "header", "cookie"
    told: list[dict[str, Any]] = [sessions.start(running, "film", access, each) for each in carriages]
    names = sessions.objects(running, "film", f"/t/{sessions.start(running, 'film', access)['token']}")
    held = [each["token"] for each in told]
    seen: list[set[str]] = [set(), set()]
    end = time.monotonic() + 2 * SHORT_S
    turn = 0
    while time.monotonic() < end:
        turn += 1
        for who in range(2):
            _, fields = carried(carriages[who], held[who])
            answer = Answer(cache, f"/v/film/{names[turn % len(names)]}", **fields)
            assert (answer.status, answer.headers["X-Cache"]) == (200, "MISS")
            if answer.renewed:
                assert "no-store" in answer.headers["Cache-Control"]
                seen[who].add(answer.renewed)
                held[who] = answer.renewed
            anybody = Answer(cache, f"/v/film/{names[turn % len(names)]}")
            assert anybody.status == 401 and not anybody.renewed
    assert all(len(each) >= 2 for each in seen) and not seen[0] & seen[1]
    for who in range(2):
        assert {session_of(cache, each) for each in held[who : who + 1]} == {told[who]["session"]}
        given = []
        for _ in range(2):
            answer = Answer(cache, "/api/v1/playback/renew", "POST", json.dumps({"token": held[who]}))
            assert answer.status == 200 and "no-store" in answer.headers["Cache-Control"]
            given.append(json.loads(answer.body)["token"])
        assert session_of(cache, given[-1]) == told[who]["session"]
        assert Answer(cache, "/api/v1/playback/renew", "POST", "{}").status == 401


def session_of(cache: Server, token: str) -> str:
    answer = Answer(cache, "/api/v1/playback/session", **{TOKEN: token})
    assert answer.status == 200, answer.body
    return str(json.loads(answer.body)["session"])


def gives_away(text: bytes, body: bytes) -> bool:
    """Whether any 16 bytes in a row of ``body`` are in there."""
    return any(body[at : at + 16] in text for at in range(0, max(1, len(body) - 16), 16))
