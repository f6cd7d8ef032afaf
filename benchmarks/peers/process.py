"""A server as a set of processes: started on one core, waited for, watched, and stopped by process id."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

START_S = 60.0
STOP_S = 10.0
Word = str | Path | int


@dataclass
class Server:
    """A running server. ``folder`` is its own; what it wrote to standard error is in ``folder/stderr``."""

    name: str
    port: int
    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def path(self, path: str) -> str:
        """``path`` with whatever lets this server send it."""
        return path

    def pids(self) -> list[int]:
        """Its processes and all their descendants."""
        found: list[int] = []
        waiting = [process.pid for process in self.processes]
        while waiting:
            found.append(waiting.pop())
            for task in Path(f"/proc/{found[-1]}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        return found

    def run(self, command: Sequence[Word], core: int | None, environment: Mapping[str, str] | None = None) -> None:
        """Start a process of this server, on ``core`` alone where one is given."""
        words = [*(("taskset", "-c", str(core)) if core is not None else ()), *map(str, command)]
        with (self.folder / "stderr").open("ab") as told:
            self.processes.append(
                subprocess.Popen(
                    words, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=told, stderr=told, env=environment
                )
            )

    def wait(self) -> None:
        """Wait until it answers; raises RuntimeError with what the server said where it ends before."""
        limit = time.monotonic() + START_S
        while True:
            ended = [process for process in self.processes if process.poll() is not None]
            if ended or time.monotonic() > limit:
                raise RuntimeError(f"{self.name} does not start: {self.said()[-1000:]}")
            with contextlib.suppress(OSError):
                if self.answers():
                    return
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether it is there; raises OSError where it is not."""
        socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        return True

    def said(self) -> str:
        """Its standard output and error."""
        told = self.folder / "stderr"
        return told.read_text(errors="replace") if told.exists() else ""

    def stop(self) -> None:
        """End all its processes, the last started first."""
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


Started = TypeVar("Started", bound=Server)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """An empty folder that other users may enter, for servers that change theirs; gone at the end."""
    made = Path(tempfile.mkdtemp(prefix="streamgate-peer-"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def stopped(server: Started) -> Iterator[Started]:
    """The server, stopped at the end; what it said goes with an exception that passes by."""
    try:
        yield server
    except Exception as error:
        error.add_note(f"{server.name} said: {server.said()[-2000:]}")
        raise
    finally:
        server.stop()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port
