"""Nodes with an auth role, accounts who may watch, and viewers who note what each worker gives them."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from streamgate.access.accounts import hash_password
from streamgate.native import cat
from tests.edge.nodes import WAIT_S, AdminConnection, RunningNode, node, until
from tests.media_factory import Audio, Video, make

LEASE_S = 1.0
PASSWORD = "open sesame"
# Every viewer of a test comes from one address.
UNLIMITED = {"starts_per_account": 6000, "logins_per_address": 6000, "renewals_per_session": 6000, "max_streams": 0}


def accounts(path: Path, *names: str) -> Path:
    """A file of accounts, all with PASSWORD."""
    hashed = hash_password(PASSWORD, bytes(16))
    path.touch(0o600)
    path.write_text("[accounts]\n" + "".join(f'{name} = "{hashed}"\n' for name in names))
    return path


def films(root: Path, policies: Mapping[str, str]) -> Path:
    """One short film under several ids in the folder ``root``, and ``free``, which is open."""
    made = make(root / "free.mp4", Video(size=(64, 36), gop=25), Audio(), seconds=9)
    for name, policy in policies.items():
        (root / name).mkdir()
        (root / name / "film.mp4").hardlink_to(made)
        (root / name / "asset.toml").write_text(f'[[source]]\nfile = "film.mp4"\n{policy}')
    return root


@contextlib.contextmanager
def with_auth(root: Path, data: Path, file: Path, *, workers: int = 2, **more: Any) -> Iterator[RunningNode]:
    """A node with an auth role that serves, and leases of LEASE_S; ``file``: of accounts."""
    given: dict[str, Any] = {
        "auth": {"enabled": True, "accounts": str(file), **UNLIMITED},
        "leases": {"duration": LEASE_S, "wait": 1.0},
        "server": {"workers": workers},
        "log": {"level": "warning"},
    }
    for section, values in more.items():
        given[section] = {**given.get(section, {}), **values} if isinstance(values, dict) else values
    with node(root, data, **given) as started:
        auth_role(started)
        yield started


def auth_role(running: RunningNode) -> int:
    """Its process, as soon as it serves."""
    found = until(lambda: (told := running.status()["auth"]) and told["state"] == "serving" and told, "the auth role")
    pid = found["pid"]
    assert isinstance(pid, int)
    return pid


def call(running: RunningNode, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any, Any]:
    """Status, fields and JSON of what is below /api/v1."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", running.port, timeout=WAIT_S)) as connection:
        fields = {"Content-Type": "application/json", **headers}
        connection.request(method, f"/api/v1/{path}", None if body is None else json.dumps(body), fields)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, answer.headers, json.loads(text) if text else None


def sign_in(running: RunningNode, name: str) -> dict[str, Any]:
    """An access token and a refresh token."""
    status, _, told = call(running, "POST", "auth/login", {"account": name, "password": PASSWORD, "cookie": False})
    assert status == 200, told
    assert isinstance(told, dict)
    return told


def start(running: RunningNode, asset: str, access: str = "", carriage: str = "path") -> dict[str, Any]:
    """A session: what the auth role tells of it."""
    fields = {"Authorization": f"Bearer {access}"} if access else {}
    status, _, told = call(running, "POST", f"playback/{asset}", {"carriage": carriage}, **fields)
    assert status == 201, told
    assert isinstance(told, dict)
    return told


def end(running: RunningNode, told: Mapping[str, Any]) -> int:
    """End a session; the status."""
    return call(running, "DELETE", "playback/session", None, **{"CTA-Common-Access-Token": told["token"]})[0]


def subject(told: Mapping[str, Any]) -> str:
    """The account's opaque id."""
    found = cat.decode(told["token"])[3][cat.CLAIMS["sub"]]
    assert isinstance(found, str)
    return found


def kid(told: Mapping[str, Any]) -> bytes:
    """The id of the key by which its token is made."""
    found = cat.decode(told["token"])[2][4]
    assert isinstance(found, bytes)
    return found


def entitlement(running: RunningNode, told: Mapping[str, Any], asset: str) -> str:
    """What a session was granted for, as a worker hears it from the auth role."""
    network = "127.0.0.0/24"
    ask = {"node": "", "ask": [[told["session"], "", asset, network, ""]]}
    with contextlib.closing(AdminConnection(next(running.data.glob("auth-*.sock")))) as connection:
        connection.request("POST", "/leases", json.dumps(ask), {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
    found = answer["granted"][f"{told['session']}|{network}"]["entitlements"][0]
    assert isinstance(found, str)
    return found


def objects(running: RunningNode, asset: str, prefix: str) -> list[str]:
    """The names behind an asset that a player asks for, of one rendition, as ``prefix`` opens it."""
    multivariant = running.get(f"{prefix}/v/{asset}/main.m3u8")[2].decode()
    media = re.findall(r"^[^#\s]\S*", multivariant, re.M)[0]
    playlist = running.get(f"{prefix}/v/{asset}/{media}")[2].decode()
    folder = media.rpartition("/")[0]
    return ["main.m3u8", media, *(f"{folder}/{name}" for name in re.findall(r"^[^#\s]\S*", playlist, re.M))]


class Player:
    """Asks for a playlist and its segments in turn at each worker, and notes each answer: when, which worker, status (0: cut), size."""

    def __init__(self, running: RunningNode, token: str, asset: str = "film") -> None:
        base = f"/t/{token}"
        names = objects(running, asset, base)
        assert len(names) >= 5
        self.paths = [f"{base}/v/{asset}/{name}" for name in names]
        self.answers: list[tuple[float, int, int, int]] = []
        self._running = running
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._play)
        self._workers = 0

    def __enter__(self) -> Player:
        self._thread.start()
        until(lambda: self._workers, "connections to all workers")
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _play(self) -> None:
        with self._running.each_worker() as connections:
            self._workers = len(connections)
            for n in range(10**6):
                if self._ended.wait(0.01):
                    return
                for worker, connection in enumerate(connections):
                    began = time.monotonic()
                    status = size = 0
                    try:
                        connection.request("GET", self.paths[n % len(self.paths)])
                        answer = connection.getresponse()
                        text = answer.read()
                        status, size = answer.status, len(text) if answer.status < 300 else 0
                    except (http.client.HTTPException, ConnectionError):
                        connection.close()  # whose answer is under way when a lease ends is cut
                    self.answers.append((began, worker, status, size))

    def statuses(self, since: float = 0.0) -> set[int]:
        """Of what was asked from then on."""
        return {status for began, _, status, _ in list(self.answers) if began >= since}

    def until(self, *wanted: int, limit: float = 10.0) -> None:
        """Wait until the last answers of all workers are of these statuses."""
        count = self._workers
        until(
            lambda: len(found := self.answers[-count:]) == count and {each[2] for each in found} <= set(wanted),
            f"{wanted}, there were {self.answers[-4:]}",
            limit,
        )

    def goes_on_until(self, moment: float) -> None:
        """Wait until it has asked at every worker after that moment (monotonic s)."""
        every = set(range(self._workers))
        until(lambda: {worker for began, worker, _, _ in list(self.answers) if began >= moment} == every, "playing")


def played(player: Player, seconds: float) -> None:
    """Let it play for that long, and see that it did so in all workers without any error."""
    player.goes_on_until(time.monotonic() + seconds)
    assert player.statuses() == {200}
    assert sum(size for *_, size in player.answers) > 0


def revoke(running: RunningNode, **what: str) -> None:
    """As an operator, with what is named in hex."""
    assert running.admin("POST", "/revocations", {**what, "exp": int(time.time()) + 1000}) == (204, None)


def everywhere(running: RunningNode, paths: Collection[str]) -> set[int]:
    """The statuses that these paths get of all workers."""
    found = set()
    with running.each_worker() as workers:
        for worker in workers:
            for path in paths:
                worker.request("GET", path)
                answer = worker.getresponse()
                answer.read()
                found.add(answer.status)
    return found
