"""The control process as a node's parent runs it: a listening Unix socket, settings, a root, and the channel."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

from streamgate.core.cells import SLOT
from tests.conftest import ROOT

WAIT_S = 30.0


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    @property
    def cookies(self) -> dict[str, str]:
        """Cookies that it sets, with their values."""
        return {name: morsel.value for name, morsel in self._morsels().items()}

    def cookie(self, name: str) -> Any:
        """One cookie with its attributes."""
        return self._morsels()[name]

    def _morsels(self) -> SimpleCookie:
        jar = SimpleCookie()
        for each in self.headers.get_all("Set-Cookie", []):
            jar.load(each)
        return jar


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=WAIT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(WAIT_S)
        self.sock.connect(str(self._path))


@dataclass
class Viewer:
    """Who asks, as the edge tells it."""

    address: str = "203.0.113.7"
    scheme: str = "https"
    host: str = "video.example"
    cookies: dict[str, str] = field(default_factory=dict)
    access: str = ""

    def headers(self) -> dict[str, str]:
        told = {
            "X-StreamGate-Client": self.address,
            "X-StreamGate-Scheme": self.scheme,
            "X-StreamGate-Host": self.host,
        }
        if self.cookies:
            told["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if self.access:
            told["Authorization"] = f"Bearer {self.access}"
        return told


class AuthProcess:
    """Starts it; ``root`` is the folder of assets, ``settings`` by section and name."""

    def __init__(self, root: Path, data: Path, **settings: Mapping[str, Any]) -> None:
        data.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.data = data
        self.store = data / "state.sqlite"
        self.log = data / "log"
        self.socket_path = data / "auth.sock"
        self.settings = {"server": {"data": str(data)}, **settings}
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self.socket_path))
        self._listening.listen(64)
        self.messages: list[dict[str, Any]] = []
        self._heard = threading.Condition()
        self.page = os.memfd_create("page")
        os.ftruncate(self.page, SLOT)
        self.start()

    def start(self) -> None:
        """Start it, and wait until it serves."""
        config = os.memfd_create("config")
        ours, theirs = socket.socketpair()
        orders = {
            "config": config,
            "overrides": self.settings,
            "root": str(self.root),
            "store": str(self.store),
            "listening": self._listening.fileno(),
            "control": theirs.fileno(),
            "page": self.page,
            "slot": 0,
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "streamgate.control.process"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=(config, self._listening.fileno(), theirs.fileno(), self.page),
            )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(orders).encode())
        self.process.stdin.close()
        theirs.close()
        os.close(config)
        self._channel = ours
        self.messages = []
        threading.Thread(target=self._listen, args=(ours,), daemon=True).start()
        self.wait_for(lambda: any("prepared" in told or "failed" in told for told in self.messages))

    def _listen(self, channel: socket.socket) -> None:
        with channel.makefile("rb") as lines:
            for line in lines:
                with self._heard:
                    self.messages.append(json.loads(line))
                    self._heard.notify_all()

    def wait_for(self, check: Any) -> None:
        """Until what it has said fulfils ``check``."""
        with self._heard:
            assert self._heard.wait_for(check, WAIT_S), (self.messages, self.log.read_text()[-2000:])

    def tell(self, **message: Any) -> None:
        """As the parent does."""
        self._channel.sendall(json.dumps(message).encode() + b"\n")

    def apply(self, kind: str, subject: bytes, until: int | None = None) -> None:
        """An event of the feed, acknowledged."""
        number = len(self.messages) + 1000
        event = {"id": number, "type": kind, "subject": subject.hex(), "until": until}
        self.tell(do="apply", id=number, events=[event])
        self.wait_for(lambda: {"done": number} in self.messages)

    def kill(self) -> None:
        """As a crash does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(WAIT_S)
        self._channel.close()

    def leave(self) -> None:
        """As a parent does that was killed."""
        self._channel.shutdown(socket.SHUT_RDWR)

    def stop(self) -> int:
        """As the parent does; its exit code."""
        if self.process.poll() is None:
            self.tell(do="stop", deadline=1.0)
        return self.process.wait(WAIT_S)

    def close(self) -> None:
        """Stop it and let go of everything."""
        try:
            self.stop()
        finally:
            self._channel.close()
            self._listening.close()
            os.close(self.page)

    def request(self, method: str, path: str, body: Any = None, viewer: Viewer | None = None, **headers: str) -> Answer:
        """Ask it; ``body`` as JSON."""
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        told = {**(viewer or Viewer()).headers(), **{name.replace("_", "-"): value for name, value in headers.items()}}
        if data is not None:
            told.setdefault("Content-Type", "application/json")
        connection = _Connection(self.socket_path)
        try:
            connection.request(method, path, data, told)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def events(self) -> list[tuple[str, bytes, int | None]]:
        """What it has told all processes: type, subject, and until when it matters."""
        with contextlib.closing(sqlite3.connect(self.store)) as db:
            return db.execute("SELECT type, subject, until FROM events ORDER BY id").fetchall()

    def row(self, key: str) -> str:
        """A row as it is stored; "" where there is none."""
        with contextlib.closing(sqlite3.connect(self.store)) as db:
            found = db.execute("SELECT value FROM kv WHERE key = ?", (key,)).fetchone()
        return found[0].decode() if found else ""

    def play(self, asset: str, viewer: Viewer | None = None, **body: Any) -> Answer:
        """Start playback."""
        return self.request("POST", f"/api/v1/playback/{asset}", body, viewer)

    def ask(self, session: str, asset: str = "film", network: str = "203.0.113.0/24", **more: Any) -> tuple[Any, str]:
        """Ask for a lease: what is granted (None: nothing), and the code of a refusal."""
        told = self.request("POST", "/leases", {"node": "n", "ask": [[session, "", asset, network, "path"]], **more})
        assert told.status == 200, told.body
        name = f"{session}|{network}"
        return told.json["granted"].get(name), told.json["refused"].get(name, "")

    def extend(self, session: str, network: str = "203.0.113.0/24") -> str:
        """Extend a lease: "" or the code of a refusal."""
        told = self.request("POST", "/leases", {"node": "n", "extend": [[session, network]]}).json
        name = f"{session}|{network}"
        assert (name in told["granted"]) != (name in told["refused"])
        return str(told["refused"].get(name, ""))


def make_assets(root: Path, **descriptions: str) -> Path:
    """A folder of assets by their names, with these asset.toml's; nothing here opens their media."""
    for name, text in descriptions.items():
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "asset.toml").write_text(f'{text}\n[[source]]\nfile = "a.mp4"\n')
    return root
