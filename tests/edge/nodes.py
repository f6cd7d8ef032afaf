"""A node as it runs in earnest: a parent and its workers, each a process, with data of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.edge.connections_of import clients_of

WAIT_S = 30.0
_STEP_S = 0.02


def until(check: Callable[[], Any], what: str = "", limit: float = WAIT_S) -> Any:
    """What ``check`` gives as soon as that is true; fails after ``limit`` seconds."""
    end = time.monotonic() + limit
    while not (found := check()):
        assert time.monotonic() < end, f"not within {limit} s: {what or check}"
        time.sleep(_STEP_S)
    return found


class AdminConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=WAIT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(WAIT_S)
        self.sock.connect(str(self._path))


class RunningNode:
    """``streamgate serve`` with two workers. ``settings`` by section and name go into its file.

    Without the auth role, unless ``auth`` wants it; then tokens need sessions.

    ``root`` is a folder or a bucket's address; ``environment``: variables beside this process's. ``files``: its soft and hard limit of open files; ``code``: a folder whose modules come before those that are installed;
    ``through``: a command that runs it.
    """

    def __init__(
        self,
        root: Path | str,
        data: Path,
        *,
        environment: Mapping[str, str] | None = None,
        files: tuple[int, int] | None = None,
        code: Path | None = None,
        through: Sequence[str] = (),
        **settings: dict[str, Any],
    ) -> None:
        self.environment = {**os.environ, **(environment or {}), **({"PYTHONPATH": str(code)} if code else {})}
        self.files = files
        self.code = code
        self.through = through
        self.data = data
        self.file = data / "streamgate.toml"
        self.admin_path = data / "admin.sock"
        self.log = data / "log"
        self._root = root
        data.mkdir(parents=True, exist_ok=True)
        self.write(**settings)
        self.start()

    def write(self, **settings: dict[str, Any]) -> None:
        """Write the settings file."""
        given: dict[str, dict[str, Any]] = {
            "server": {"port": 0, "workers": 2, "data": str(self.data)},
            "drain": {"deadline": 10.0},
            "admin": {"socket": str(self.admin_path)},
            "log": {"access": False, "format": "json"},
            # Every client of a test is this machine.
            "limits": {"connections_per_address": 1_000_000},
            # Tokens are made by the tests themselves, and no process beside the workers is to be waited for.
            "auth": {"enabled": False},
            "tokens": {"without_session": True},
        }
        if settings.get("auth", {}).get("enabled"):
            del given["tokens"]
        for section, values in settings.items():
            given.setdefault(section, {}).update(values)
        lines = [
            f"[{s}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items()) for s, values in given.items()
        ]
        self.file.write_text("\n".join(lines))

    def start(self) -> None:
        """Start it, and wait until it serves."""
        command = [sys.executable, "-W", "error", "-m", "streamgate.cli", "serve", str(self._root)]
        command += ["--config", str(self.file)]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*self.through, *command],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self.environment,
                preexec_fn=self._limit_files if self.files else None,
            )
        assert self.process.stdout is not None
        found = re.match(r"Watch\s+(http://.*)/$", self.process.stdout.readline())
        if not found:
            self.process.kill()
            self.end()
            raise AssertionError(f"it did not start:\n{self.log.read_text()}")
        self.url = found[1]
        self.port = int(self.url.rpartition(":")[2])

    def _limit_files(self) -> None:
        assert self.files is not None
        resource.setrlimit(resource.RLIMIT_NOFILE, self.files)

    def admin(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """What the operator's socket answers: status and JSON."""
        with contextlib.closing(AdminConnection(self.admin_path)) as connection:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None

    def status(self) -> dict[str, Any]:
        """What ``/status`` tells."""
        status, told = self.admin("GET", "/status")
        assert status == 200
        assert isinstance(told, dict)
        return told

    def workers(self, state: str = "serving") -> list[int]:
        """The workers' process ids."""
        return [worker["pid"] for worker in self.status()["workers"] if worker["state"] == state]

    def counters(self) -> dict[str, float]:
        """Every series of the node."""
        status, told = self.admin("GET", "/counters")
        assert status == 200
        assert isinstance(told, dict)
        return told

    def total(self, name: str, label: str = "") -> float:
        """The sum of a metric's series, of those with ``label`` in their labels."""
        return sum(v for k, v in self.counters().items() if k.partition("{")[0] == f"streamgate_{name}" and label in k)

    def get(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    @contextlib.contextmanager
    def each_worker(self) -> Iterator[list[http.client.HTTPConnection]]:
        """A connection to each of the workers: the kernel decides to whom one comes, so they are opened until all have one."""
        found: dict[int, http.client.HTTPConnection] = {}
        with contextlib.ExitStack() as opened:
            workers = self.workers()
            while len(found) < len(workers):
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
                opened.callback(connection.close)
                connection.connect()
                port = connection.sock.getsockname()[1]
                owner = until(lambda: next((pid for pid in workers if port in clients_of(pid, self.port)), 0))  # noqa: B023
                found.setdefault(owner, connection)
            yield list(found.values())

    def events(self) -> list[dict[str, Any]]:
        """What was logged so far, whole lines only."""
        lines = self.log.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n") and line.startswith("{")]

    def reload(self) -> None:
        """Reload, and wait until the new workers serve."""
        before = self.status()["generation"]
        self.process.send_signal(signal.SIGHUP)
        until(lambda: self.status()["generation"] > before and len(self.workers()) == 2, "a reload", 2 * WAIT_S)

    def stop(self) -> int:
        """Stop it gracefully; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.end()

    def kill(self) -> None:
        """kill -9 of all its processes at once."""
        pids = [*self.workers(), *self.workers("leaving"), *self.workers("starting"), self.process.pid]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.end()
        until(lambda: not any(os.path.exists(f"/proc/{pid}/fd/0") for pid in pids), "their end")

    def end(self) -> int:
        """Wait for the end."""
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait(WAIT_S)


@contextlib.contextmanager
def node(root: Path | str, data: Path, **given: Any) -> Iterator[RunningNode]:
    """A node that runs, made as :class:`RunningNode`; killed at the end if it still does."""
    running = RunningNode(root, data, **given)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.end()
