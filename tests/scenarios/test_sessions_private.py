"""A whole run of a node, with every carriage, error, renewal and revocation, and workers that are killed: nothing that it leaves,
and nothing that it tells those whom it turns away, holds a token or an address.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import pytest

from tests.edge.nodes import WAIT_S, RunningNode, until
from tests.scenarios import sessions
from tests.scenarios.test_sessions_mutated import mutated

pytestmark = pytest.mark.slow

ADDRESSES = ("203.0.113.77", "2001:db8:77:1::77")
PIECE = 24  # characters of a token that nothing may hold
TOKEN = "CTA-Common-Access-Token"


class Run:
    """What was asked, and what is not to be found anywhere."""

    def __init__(self, running: RunningNode) -> None:
        self.running = running
        self.secrets: list[str] = []
        self.broken: list[str] = []
        self.answers: list[tuple[int, str, bytes]] = []

    def send(self, sent: bytes, address: str = ADDRESSES[0]) -> bytes:
        """Anything, on a connection of that client's; all that comes back."""
        family, ours = ("TCP6", "2001:db8::1") if ":" in address else ("TCP4", "192.0.2.1")
        answer = b""
        with socket.create_connection(("127.0.0.1", self.running.port), timeout=WAIT_S) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(f"PROXY {family} {address} {ours} 12345 443\r\n".encode() + sent)
                while part := connection.recv(65_536):
                    answer += part
        return answer

    def ask(self, path: str, method: str = "GET", body: str = "", /, **headers: str) -> tuple[int, bytes]:
        """One request by each of two clients; the first's answer."""
        fields = {"Host": "x", "Connection": "close", "Content-Type": "application/json", **headers}
        if body:
            fields["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        found = []
        for address in ADDRESSES if method == "GET" else ADDRESSES[:1]:
            answer = self.send(f"{method} {path} HTTP/1.1\r\n{head}\r\n{body}".encode(), address)
            status = int(answer.split(b" ", 2)[1])
            self.answers.append((status, path, answer))
            found.append((status, answer.partition(b"\r\n\r\n")[2]))
        return found[0]

    def call(self, path: str, body: object, /, **headers: str) -> Any:
        """A call of the API that succeeds; what it gives is to be kept secret."""
        status, text = self.ask(f"/api/v1/{path}", "POST", json.dumps(body), **headers)
        assert status < 300, text
        told = json.loads(text)
        self.secrets += [told[name] for name in ("token", "access_token", "refresh_token") if name in told]
        return told

    def left(self, text: bytes, where: str) -> None:
        """Nothing of that kind may be in there."""
        for secret in (*self.secrets, *self.broken):
            for at in range(0, len(secret) - PIECE, PIECE // 2):
                assert secret[at : at + PIECE].encode() not in text, f"a piece of a token is in {where}"
        for secret in self.secrets:
            with contextlib.suppress(ValueError):
                raw = urlsafe_b64decode(secret + "=" * (-len(secret) % 4))
                assert raw[-PIECE:] not in text, f"a piece of a token, decoded, is in {where}"
        for address in ADDRESSES:
            packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
            assert address.encode() not in text, f"an address is in {where}"
            assert len(packed) < 16 or packed not in text, f"an address is in {where}"


def traffic(run: Run) -> None:
    """Whatever viewers may do, and what they should not."""
    signed = run.call("auth/login", {"account": "ada", "password": sessions.PASSWORD, "cookie": False})
    signed = run.call("auth/refresh", {"refresh_token": signed["refresh_token"]})
    bearer = {"Authorization": f"Bearer {signed['access_token']}"}
    told = {each: run.call("playback/film", {"carriage": each}, **bearer) for each in ("path", "header", "cookie")}
    path, header, cookie = (told[each]["token"] for each in ("path", "header", "cookie"))
    leaves = ["main.m3u8", "main.mpd", "nothing", "v1-00/0.m4s", "x;y/../z"]
    for leaf in leaves:
        for asset in ("film", "other", "none"):
            run.ask(f"/t/{path}/v/{asset}/{leaf}")
            run.ask(f"/v/{asset}/{leaf}", "GET", "", **{TOKEN: header})
            run.ask(f"/v/{asset}/{leaf}", "GET", "", Cookie=f"{TOKEN.lower()}={cookie}")
            run.ask(f"/v/{asset}/{leaf}?{TOKEN}={path}")
    dice = random.Random(4)
    for _ in range(12):
        run.broken.append(broken := mutated(path, dice))
        run.ask(f"/t/{broken}/v/film/main.m3u8")
        run.ask("/v/film/main.m3u8", "GET", "", **{TOKEN: broken})
    for odd in (
        f"/{path}",
        f"/t/{path}",
        f"/v/{path}/x",
        f"/t/{path}/t/{path}/v/film/x",
        f"/v/film;x={path}",
        f"//t/{path}",
        f"/api/v1/{path}",
    ):
        run.ask(odd)
    run.ask(f"/t/{path}/v/film/main.m3u8", "GET", "", **{TOKEN: header})
    run.ask("/v/film/main.m3u8", "GET", "", traceparent="00-" + "ab" * 16 + "-00f067aa0ba902b7-01", **{TOKEN: header})
    for sent in (
        f"GET /t/{path} HTTP/9\r\n\r\n",
        f"{path}\r\n\r\n",
        f"GET /v/film/x HTTP/1.1\r\n{path}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: x\r\nX: {path * 90}\r\n\r\n",
    ):
        for address in ADDRESSES:
            run.answers.append((400, "", run.send(sent.encode(), address)))
    for each in (path, header, cookie):
        run.call("playback/renew", {"token": each})
        run.ask("/api/v1/playback/renew", "POST", f'{{"token": "{each}"')
        run.ask("/api/v1/playback/renew", "POST", json.dumps({"token": each[:-4]}))
        run.ask(f"/api/v1/playback/{each}", "POST", "{}", **bearer)
        run.ask(
            "/api/v1/playback/session", "GET", "", **{TOKEN: each, "Authorization": f"Bearer {signed['access_token']}x"}
        )
    run.ask("/api/v1/auth/refresh", "POST", json.dumps({"refresh_token": signed["refresh_token"][:-2]}))
    run.ask("/api/v1/auth/login", "POST", json.dumps({"account": "ada", "password": path}))
    sessions.revoke(run.running, session=told["header"]["session"])
    run.ask("/api/v1/playback/session", "DELETE", "", **{TOKEN: path})
    for leaf in leaves:
        run.ask(f"/t/{path}/v/film/{leaf}")
        run.ask(f"/v/film/{leaf}", "GET", "", **{TOKEN: header})


def test_nothing_holds_a_token_or_an_address(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    root = sessions.films(tmp_path / "films", dict.fromkeys(("film", "other"), '[policy]\nkind = "allow"\n'))
    data = tmp_path / "node"
    more: dict[str, Any] = {
        "server": {"proxy_protocol": True, "trusted_proxies": ["127.0.0.0/8"]},
        "log": {
            "level": "debug",
            "access": True,
            "access_file": str(data / "access.log"),
            "cmcd_file": str(data / "cmcd.log"),
        },
        "tokens": {"short_life": 2},
        "auth": {"max_networks": 0},
    }
    with sessions.with_auth(root, data, sessions.accounts(tmp_path / "accounts.toml", "ada"), **more) as running:
        run = Run(running)
        traffic(run)
        first, second = running.workers()
        role = sessions.auth_role(running)
        for pid, number in ((first, signal.SIGSEGV), (second, signal.SIGKILL), (role, signal.SIGABRT)):
            os.kill(pid, number)
        until(lambda: len({*running.workers()} - {first, second}) == 2, "other workers")
        until(lambda: sessions.auth_role(running) != role, "another auth role")
        traffic(run)
        for name in ("/metrics", "/health/ready", "/version", "/assets.json"):
            assert run.ask(name)[0] == 200
        told = {"status": running.status(), "counters": running.counters()}
        # Whatever a store has not yet written into its file.
        files = {each: each.read_bytes() for each in data.rglob("*") if each.is_file() and "keys" not in each.parts}
        assert running.stop() == 0
    files |= {each: each.read_bytes() for each in data.rglob("*") if each.is_file() and "keys" not in each.parts}
    statuses = {status for status, _, _ in run.answers}
    assert {200, 201, 302, 400, 401, 403, 404} <= statuses and len(run.secrets) >= 16
    for status, path, answer in run.answers:
        head, _, body = answer.partition(b"\r\n\r\n")
        if status == 404:
            # Whoever is let in is given the next token, whatever there is at the path.
            answer = re.sub(
                rb"(?im)^(CTA-Common-Access-Token: |Set-Cookie: cta-common-access-token=)[^\r]*\r\n", b"", answer
            )
        if status >= 400 or path in ("/metrics", "/health/ready", "/version", "/assets.json"):
            run.left(answer, f"the answer {status}")
        elif "/v/" in path and status == 200:
            run.left(body, "an answer's body")
    run.left(json.dumps(told).encode(), "what the operator is told")
    names = {each.name for each in files}
    assert {"log", "access.log", "state.sqlite"} <= names
    lines = files[data / "access.log"].decode().splitlines()
    assert len(lines) > 200 and any("203.0.113.0" in line for line in lines), "a network is told"
    for each, text in files.items():
        if not each.suffix == ".sock":
            run.left(text, str(each.relative_to(data)))
