"""One link for many, and one ticket for a crowd: refused as configured. A proxy tells of each client's network."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.edge.nodes import WAIT_S, RunningNode, until
from tests.scenarios import sessions
from tests.scenarios.sessions import LEASE_S

pytestmark = pytest.mark.slow

NETWORKS = [f"203.0.{n}.7" for n in range(8)] + ["2001:db8:1::7", "2001:db8:2::7"]
WINDOW_S = 4.0
CROWD = 50


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """``film`` is for as many streams as anybody likes, ``few`` for three, and of ``newest`` the latest three go on."""
    base = tmp_path_factory.mktemp("shared")
    allow = '[policy]\nkind = "allow"\n'
    policies = {
        "film": allow,
        "few": f"{allow}max_streams = 3\n",
        "newest": f'{allow}max_streams = 3\nwhen_full = "end_oldest"\n',
    }
    root = sessions.films(tmp_path_factory.mktemp("films"), policies)
    more: dict[str, Any] = {
        "server": {"proxy_protocol": True, "trusted_proxies": ["127.0.0.0/8"]},
        "auth": {"networks_window": WINDOW_S, "streams_window": WINDOW_S},
    }
    accounts = sessions.accounts(base / "accounts.toml", "ada", "bob")
    with sessions.with_auth(root, base / "data", accounts, **more) as started:
        yield started


def ask(
    running: RunningNode, address: str, path: str, method: str = "GET", body: str = "", **headers: str
) -> tuple[int, str]:
    """One request on a connection that a proxy introduces; status and all the rest."""
    family = "TCP6" if ":" in address else "TCP4"
    ours = "2001:db8::1" if ":" in address else "192.0.2.1"
    fields = {"Host": "x", "Connection": "close", "Content-Type": "application/json", **headers}
    if body:
        fields["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    with socket.create_connection(("127.0.0.1", running.port), timeout=WAIT_S) as connection:
        said = f"PROXY {family} {address} {ours} 12345 443\r\n{method} {path} HTTP/1.1\r\n{head}\r\n{body}"
        connection.sendall(said.encode())
        answer = b""
        while part := connection.recv(65_536):
            answer += part
    return int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2].decode("latin-1")


def post(
    running: RunningNode, path: str, body: str = "{}", address: str = "198.51.100.1", **headers: str
) -> tuple[int, Any]:
    status, text = ask(running, address, f"/api/v1/{path}", "POST", body, **headers)
    return status, json.loads(text)


def signed_in(running: RunningNode, name: str) -> str:
    status, told = post(running, "auth/login", f'{{"account": "{name}", "password": "{sessions.PASSWORD}"}}')
    assert status == 200, told
    return str(told["access_token"])


def started(running: RunningNode, asset: str, access: str) -> tuple[int, Any]:
    return post(running, f"playback/{asset}", Authorization=f"Bearer {access}")


def test_one_link_on_ten_networks(running: RunningNode) -> None:
    """Two are let in; from the third on nobody is, the first two neither, until it is quiet again."""
    status, told = started(running, "film", signed_in(running, "ada"))
    assert status == 201
    path = f"/t/{told['token']}/v/film/main.m3u8"
    # Several addresses of a network are one.
    assert [ask(running, each, path)[0] for each in (NETWORKS[0], "203.0.0.200", NETWORKS[1])] == [200] * 3
    for address in NETWORKS[2:]:
        status, text = ask(running, address, path)
        assert status == 401 and '"session_shared"' in text and '"renew"' in text

    def everybody() -> set[int]:
        return {ask(running, each, path)[0] for each in NETWORKS}

    # The lease that the first two have is not extended.
    end = time.monotonic() + LEASE_S
    until(lambda: everybody() and time.monotonic() > end)
    assert everybody() == {401}
    # The one who is asked to renews it from the page, and is served again when the others have gone.
    assert post(running, "playback/renew", f'{{"token": "{told["token"]}"}}', NETWORKS[0])[0] in (200, 401)
    until(lambda: ask(running, NETWORKS[0], path)[0] == 200, "that it is quiet", WINDOW_S + 5)


def test_one_ticket_for_a_crowd(running: RunningNode) -> None:
    """Fifty with one entitlement: three play, the others are told so; when one ends there is room for one."""
    access = signed_in(running, "ada")
    crowd = [told for status, told in (started(running, "few", access) for _ in range(CROWD)) if status == 201]
    assert len(crowd) == CROWD, "who has not asked for media plays nothing yet"

    def asked(place: int) -> tuple[int, str]:
        return ask(running, f"198.51.{place}.7", f"/t/{crowd[place]['token']}/v/few/main.m3u8")

    found = [asked(place) for place in range(CROWD)]
    assert [status for status, _ in found] == [200] * 3 + [409] * (CROWD - 3)
    assert all('"too_many_streams"' in text for status, text in found if status == 409)
    status, told = started(running, "few", access)
    assert (status, told["code"]) == (409, "too_many_streams")
    # Past several leases it is so still.
    end = time.monotonic() + 2.5 * LEASE_S
    while time.monotonic() < end:
        assert [asked(place)[0] for place in range(6)] == [200] * 3 + [409] * 3
    left = ask(
        running, "198.51.1.7", "/api/v1/playback/session", "DELETE", **{"CTA-Common-Access-Token": crowd[1]["token"]}
    )
    assert left[0] == 204
    until(lambda: asked(1)[0] == asked(1)[0] == 401, "its end", 1.0)
    until(lambda: asked(3)[0] == 200, "that there is room", 1.0)
    assert [asked(place)[0] for place in (0, 1, 2, 3, 4)] == [200, 401, 200, 200, 409]
    # Another account's is another entitlement.
    status, told = started(running, "few", signed_in(running, "bob"))
    assert status == 201 and ask(running, "198.51.99.7", f"/t/{told['token']}/v/few/main.m3u8")[0] == 200


def test_the_oldest_ends(running: RunningNode) -> None:
    """The latest three of fifty play on; whoever made room is out within a second."""
    access = signed_in(running, "bob")
    crowd = []
    for place in range(CROWD):
        status, told = started(running, "newest", access)
        assert status == 201, told
        crowd.append(f"/t/{told['token']}/v/newest/main.m3u8")
        assert ask(running, f"198.51.{place}.7", crowd[-1])[0] == 200
    last = time.monotonic()

    def now() -> list[int]:
        return [ask(running, f"198.51.{place}.7", path)[0] for place, path in enumerate(crowd)]

    until(lambda: time.monotonic() > last + 1.0)
    assert now() == [401] * (CROWD - 3) + [200] * 3
