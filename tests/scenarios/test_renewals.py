"""Viewers who play past their tokens on a node with three workers, on what its answers bring alone."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from http.cookies import SimpleCookie
from typing import Any

import pytest

from streamgate.access.accounts import hash_password
from streamgate.access.tokens import COOKIE, NAME
from streamgate.native import cat
from tests.edge.nodes import WAIT_S, RunningNode, node, until
from tests.edge.test_caches_downstream import CACHES
from tests.media_factory import Audio, Video, make

pytestmark = pytest.mark.slow

LIFE_S = 2
GRACE_S = 30
RENEWALS = 5
PASSWORD = "open sesame"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    root = tmp_path_factory.mktemp("assets")
    made = make(root / "film.mp4", Video(size=(64, 36), gop=25), Audio(), seconds=9)
    (root / "film").mkdir()
    made.rename(root / "film/film.mp4")
    policy = f'[policy]\nkind = "password"\npassword = "{hash_password(PASSWORD, bytes(16))}"\n'
    (root / "film/asset.toml").write_text(f'[[source]]\nfile = "film.mp4"\n{policy}')
    # Every viewer of a test comes from one address.
    auth = {"enabled": True, "starts_per_account": 1000, "logins_per_address": 1000, "renewals_per_session": 600}
    tokens = {"short_life": LIFE_S, "revalidate": 0.2}
    more: dict[str, Any] = {"leases": {"duration": 1.0}, "server": {"workers": 3}, "log": {"level": "warning"}}
    with node(root, tmp_path_factory.mktemp("data"), auth=auth, tokens=tokens, **more) as started:
        until(lambda: (told := started.status()["auth"]) and told["state"] == "serving", "the auth role")
        yield started


class Viewer:
    """Plays with a token in a header or a cookie, and takes what its answers bring, each request on a connection of its own."""

    def __init__(self, running: RunningNode, carriage: str, token: str = "", port: int = 0) -> None:
        self.port = port or running.port
        self.carriage = carriage
        self.renewals = 0
        self.token = token
        if not token:
            status, _, told = self.call("POST", "film", {"password": PASSWORD, "carriage": carriage})
            assert status == 201, told
            self.token = told["token"]

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any, Any]:
        """The API, with the token as a header."""
        fields = {"Content-Type": "application/json", **({NAME: self.token} if self.token else {})}
        return self._ask(method, f"/api/v1/playback/{path}", None if body is None else json.dumps(body), fields)

    def ask(self) -> tuple[int, Any]:
        """Status and problem of a playlist."""
        carried = {"header": {NAME: self.token}, "cookie": {"Cookie": f"{COOKIE}={self.token}"}}.get(self.carriage, {})
        before = f"/t/{self.token}" if self.carriage == "path" else ""
        status, headers, told = self._ask("GET", f"{before}/v/film/main.m3u8", None, carried)
        new = headers.get(NAME, "")
        if "Set-Cookie" in headers:
            new = SimpleCookie(headers["Set-Cookie"])[COOKIE].value
        if new:
            assert self.claims(new)[4] > self.claims()[4]
            self.token, self.renewals = new, self.renewals + 1
        return status, told

    def claims(self, token: str = "") -> dict[Any, Any]:
        return cat.decode(token or self.token)[3]

    def play(self, renewals: int) -> None:
        """Ask again and again until so many renewals came; all answers must be good."""
        wanted, end = self.renewals + renewals, time.monotonic() + WAIT_S
        while self.renewals < wanted:
            assert time.monotonic() < end
            status, told = self.ask()
            assert status == 200, told
            time.sleep(0.02)

    def _ask(self, method: str, path: str, body: str | None, fields: dict[str, str]) -> tuple[int, Any, Any]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)) as to:
            to.request(method, path, body, fields)
            answer = to.getresponse()
            text = answer.read()
            kind = answer.headers.get("Content-Type", "")
            return answer.status, answer.headers, json.loads(text) if "json" in kind else None


def command(running: RunningNode, *arguments: str) -> str:
    program = [sys.executable, "-W", "error", "-m", "streamgate.cli", *arguments, "--config", str(running.file)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_five_renewals_and_an_end(running: RunningNode) -> None:
    viewers = [Viewer(running, "header"), Viewer(running, "cookie")]
    firsts = [viewer.claims() for viewer in viewers]
    while any(viewer.renewals < RENEWALS for viewer in viewers):
        for viewer in viewers:
            viewer.play(1)
    for viewer, first in zip(viewers, firsts, strict=True):
        last = viewer.claims()
        assert last[7][:16] == first[7][:16] and int.from_bytes(last[7][16:]) >= RENEWALS
        assert last[4] >= first[4] + RENEWALS
        # Who asks the API gets one of the same session, and the answers go on from there.
        status, _, told = viewer.call("POST", "renew")
        assert (status, told["session"]) == (200, last[7][:16].hex())
        viewer.token = told["token"]
        viewer.play(1)
        held = viewer.token
        assert viewer.call("DELETE", "session")[0] == 204
        until(lambda viewer=viewer: viewer.ask()[0] == 401, "its end")  # type: ignore[misc]
        for _ in range(12):
            status, told = viewer.ask()
            assert (status, told["renew"]) == (401, "/api/v1/playback/renew")
        assert viewer.token == held, "nobody renews what has ended"


@pytest.mark.needs("nginx", "varnishd")
@pytest.mark.parametrize("cache", CACHES)
def test_a_cache_in_front_hands_out_no_token(running: RunningNode, cache: str) -> None:
    with CACHES[cache](running.port) as front:
        viewers = [Viewer(running, carriage, port=front.port) for carriage in ("header", "cookie")]
        other, stranger = Viewer(running, "path", port=front.port), Viewer(running, "header", "x", front.port)
        for viewer in viewers:
            viewer.play(1)
            assert other.ask()[0] == 200
            assert other.renewals == 0, "of whoever was there before"
            assert stranger.ask()[0] == 401


def test_a_site_whose_key_changes(running: RunningNode) -> None:
    viewer = Viewer(running, "cookie")
    viewer.play(1)
    before = cat.decode(viewer.token)[2][4]
    assert isinstance(before, bytes)
    signs = command(running, "keys", "new").split()[0].encode()
    assert signs != before
    until(lambda: viewer.ask()[0] == 200 and cat.decode(viewer.token)[2][4] == signs, "a token of the new key")
    command(running, "keys", "retire", before.decode())
    viewer.play(2)


def test_tokens_of_the_operator_are_renewed(running: RunningNode) -> None:
    for carriage in ("header", "cookie"):
        mint = ("token", "mint", "film", "--carriage", carriage)
        viewer = Viewer(running, carriage, command(running, *mint, "--port", str(running.port)))
        assert viewer.claims()[4] <= time.time() + LIFE_S
        viewer.play(2)
        status, _, told = viewer.call("POST", "renew")
        assert (status, told["carriage"]) == (200, carriage)
    said = command(running, *mint, "--url", running.url).splitlines()
    assert [line.split()[0] for line in said] == ["cookie", "HLS", "DASH"]
    assert said[0].split()[1].startswith(f"{COOKIE}=") and said[1].split()[1] == f"{running.url}/v/film/main.m3u8"
    assert 323 not in cat.decode(command(running, *mint, "--offline"))[3], "nobody would renew it"
