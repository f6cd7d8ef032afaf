"""The process beside the workers: started, replaced when it dies, and none of it in anybody's way."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edge.beside import Beside
from edge.configuration import Snapshot
from edge.shared import Page
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from tests.edge.harness import settings

# Answers every connection with its pid, until it is told to stop.
GOOD = """
import json, os, socket, sys, threading
orders = json.load(sys.stdin)
assert orders["root"] == "here", orders
listening, channel = socket.socket(fileno=orders["listening"]), socket.socket(fileno=orders["control"])
def serve():
    listening.setblocking(True)
    while True:
        connection, _ = listening.accept()
        connection.sendall(str(os.getpid()).encode())
        connection.close()
threading.Thread(target=serve, daemon=True).start()
channel.setblocking(True)
channel.sendall(b'{"prepared": true}\\n{"ready": true}\\n{"news": true}\\n')
for line in channel.makefile():
    told = json.loads(line)
    if told["do"] == "stop":
        break
"""
LIVELY = f"""{GOOD}
    if "id" in told:
        channel.sendall(b'{{"done": %d}}\\n' % told["id"])
"""
BAD = "raise SystemExit(3)"


class Heard:
    """What it tells of."""

    def __init__(self) -> None:
        self.serving: list[bool] = []
        self.news = 0
        self.beside: Beside | None = None

    def change(self) -> None:
        assert self.beside is not None
        self.serving.append(self.beside.serving)

    def one_more(self) -> None:
        self.news += 1


@asynccontextmanager
async def kept(
    path: Path, command: Sequence[str], heard: Heard, telemetry: Telemetry, **server: Any
) -> AsyncIterator[Beside]:
    file = os.memfd_create("settings")
    snapshot = Snapshot(settings(server), file, -1)
    given: dict[str, object] = {"root": "here"}
    beside = Beside(command, path, Page.create(), telemetry, given, lambda: snapshot, heard.change, heard.one_more)
    heard.beside = beside
    await beside.start()
    try:
        yield beside
    finally:
        await beside.stop()
        os.close(file)


async def until(check: Callable[[], Any]) -> None:
    """The test's time limit ends what never is."""
    while not check():
        await asyncio.sleep(0.01)


async def asked(path: Path) -> int:
    """The pid of whoever answers at the socket."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    pid = int(await reader.read())
    writer.close()
    return pid


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


def deaths(telemetry: Telemetry) -> int:
    text = telemetry.exposition("")[0].decode()
    return int(
        float(
            next(
                (line.split()[-1] for line in text.splitlines() if line.startswith("streamgate_auth_deaths_total ")), 0
            )
        )
    )


async def test_kept_alive(tmp_path: Path, telemetry: Telemetry) -> None:
    heard, path = Heard(), tmp_path / "auth.sock"
    async with kept(path, ("-c", GOOD), heard, telemetry) as beside:
        first = await asked(path)  # who came before it was there has waited
        await until(lambda: beside.serving and heard.news == 1)
        assert path.stat().st_mode & 0o777 == 0o600
        os.kill(first, signal.SIGKILL)
        await until(lambda: len(heard.serving) == 2)
        second = await asked(path)
        assert second != first
        await until(lambda: heard.news == 2)
        assert heard.serving[:3] == [True, False, True]
        assert await asyncio.to_thread(deaths, telemetry) == 1
        beside.reload()
        await until(lambda: heard.news == 3 and beside.serving)
        assert await asked(path) not in (first, second)
        assert await asyncio.to_thread(deaths, telemetry) == 1, "a reload is no death"
    assert not path.exists()
    assert beside.process is not None
    assert beside.process.state == "ended"


async def test_one_that_cannot_start_is_tried_again(tmp_path: Path, telemetry: Telemetry, logs: list[Any]) -> None:
    heard = Heard()
    async with kept(tmp_path / "auth.sock", ("-c", BAD), heard, telemetry) as beside:
        await until(lambda: len(heard.serving) >= 3)
        assert not any(heard.serving)
        assert not beside.serving
    assert "the auth role cannot be started" in {each["event"] for each in logs}


async def test_one_that_hangs_is_replaced(tmp_path: Path, telemetry: Telemetry, logs: list[Any]) -> None:
    heard, path = Heard(), tmp_path / "auth.sock"
    async with kept(path, ("-c", LIVELY), heard, telemetry, hang_timeout=1.0) as beside:
        await until(lambda: beside.serving)
        first = await asked(path)
        os.kill(first, signal.SIGSTOP)
        await until(lambda: len(heard.serving) == 3 and beside.serving)
        assert await asked(path) != first
    assert "the auth role hangs and is killed" in {each["event"] for each in logs}


async def test_one_that_does_not_start_is_replaced(
    tmp_path: Path, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, logs: list[Any]
) -> None:
    monkeypatch.setattr("edge.beside._READY_S", 0.2)
    async with kept(tmp_path / "auth.sock", ("-c", "import time; time.sleep(60)"), Heard(), telemetry):
        await until(lambda: "the auth role does not start and is killed" in {each["event"] for each in logs})


async def test_one_that_hangs_is_killed_at_the_end(
    tmp_path: Path, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.beside._LEAVE_S", 0.2)
    heard, path = Heard(), tmp_path / "auth.sock"
    async with kept(path, ("-c", GOOD), heard, telemetry) as beside:
        os.kill(await asked(path), signal.SIGSTOP)
    assert beside.process is not None
    assert beside.process.state == "ended"


async def test_where_nothing_can_listen(tmp_path: Path, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.beside._FREED_S", 0.1)
    heard, path = Heard(), tmp_path / "auth.sock"
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(path))
        taken.listen()
        with pytest.raises(StreamGateError, match="auth.socket") as caught:
            async with kept(path, ("-c", GOOD), heard, telemetry):
                raise AssertionError("it began")
    assert caught.value.code == "listen_failed"
