"""A worker that hangs is noticed and replaced; one that is only slow, or not there yet, is left alone."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from edge.process import Process
from edge.shared import Page
from edge.watch import Watch
from streamgate.core.telemetry import Telemetry
from tests.edge.connections_of import waiting_at
from tests.edge.installed import Installed
from tests.edge.nodes import RunningNode, node, until

TIMEOUT = 2.0


class Worker:
    """A process that can only be killed."""

    def __init__(self, page: Page, state: str = "serving") -> None:
        self.pid = os.getpid()
        self.slot = page.take()
        self.state = state
        self.killed = 0

    def kill(self) -> None:
        self.killed += 1


@pytest.fixture
def page() -> Iterator[Page]:
    made = Page.create()
    yield made
    os.close(made.fd)


@pytest.fixture
def workers(page: Page) -> list[Worker]:
    return [Worker(page), Worker(page), Worker(page, "leaving")]


@pytest.fixture
def watching(page: Page, workers: list[Worker]) -> Callable[[float], Watch]:
    telemetry = Telemetry()
    return lambda timeout: Watch(page, lambda: cast(list[Process], workers), telemetry, lambda: timeout)


def test_who_is_silent_for_too_long_is_killed(
    page: Page, workers: list[Worker], watching: Callable[[float], Watch]
) -> None:
    lively, hung, leaving = workers
    watch = watching(TIMEOUT)
    for worker in workers:
        page.beat(worker.slot)
    for turn in range(5):  # the first is from where silence counts; two looks a second
        assert (lively.killed, hung.killed, leaving.killed) == (0, 0, 0), turn
        page.beat(lively.slot)
        watch.look()
    assert (lively.killed, hung.killed, leaving.killed) == (0, 1, 1)
    # It takes its time to die; nobody is killed over and over.
    watch.look()
    assert (hung.killed, leaving.killed) == (1, 1)


def test_a_sign_of_life_just_in_time(page: Page, workers: list[Worker], watching: Callable[[float], Watch]) -> None:
    watch = watching(TIMEOUT)
    for _ in range(5):
        for worker in workers:
            page.beat(worker.slot)
        for _ in range(4):
            watch.look()
    assert [worker.killed for worker in workers] == [0, 0, 0]


def test_who_has_not_begun_is_waited_for_and_nobody_is_watched_without_a_limit(
    page: Page, workers: list[Worker], watching: Callable[[float], Watch]
) -> None:
    watch = watching(TIMEOUT)
    for _ in range(20):
        watch.look()
    assert [worker.killed for worker in workers] == [0, 0, 0]
    for worker in workers:
        page.beat(worker.slot)
    watch = watching(0.0)
    for _ in range(200):
        watch.look()
    assert [worker.killed for worker in workers] == [0, 0, 0]


def test_a_slot_s_next_owner_begins_anew(page: Page, workers: list[Worker]) -> None:
    slot = workers[0].slot
    page.beat(slot)
    assert page.beats(slot) == 1
    page.free(slot)
    assert page.take() == slot and page.beats(slot) == 0


@pytest.fixture
def running(folder: Path, tmp_path: Path) -> Iterator[RunningNode]:
    with node(folder, tmp_path / "data", server={"hang_timeout": TIMEOUT}) as started:
        yield started


def test_a_hung_worker_is_replaced(running: RunningNode) -> None:
    """The other is left alone, and who waits in the queue of the hung one is served by its successor."""
    hung, other = running.workers()
    os.kill(hung, signal.SIGSTOP)
    waiting: list[socket.socket] = []
    try:
        while not waiting_at(running.port):
            waiting.append(socket.create_connection(("127.0.0.1", running.port), timeout=20))
            waiting[-1].sendall(b"GET /v/film/main.m3u8 HTTP/1.1\r\nHost: a\r\n\r\n")
        until(lambda: hung not in running.workers() and len(running.workers()) == 2, "a successor")
        assert other in running.workers()
        assert all(sock.recv(15) == b"HTTP/1.1 200 OK" for sock in waiting)
    finally:
        for sock in waiting:
            sock.close()
    assert (running.total("worker_hangs_total"), running.total("worker_deaths_total")) == (1, 1)
    [said] = [event for event in running.events() if event["event"] == "a worker hangs and is killed"]
    assert (said["pid"], said["silent"]) == (hung, TIMEOUT)


BLOCKED = """

async def _block(self):
    import time
    time.sleep(3600)


Server.start = _block
"""


@pytest.mark.slow
def test_a_team_that_hangs_before_it_serves_ends_the_reload_only(folder: Path, tmp_path: Path) -> None:
    """Its loop is blocked by a mistake in the new code; the old one serves on, and the next reload is as any other."""
    installed = Installed(tmp_path / "code", "server")
    with node(folder, tmp_path / "data", code=installed.folder, server={"hang_timeout": TIMEOUT}) as running:
        before = running.workers()
        installed.install(BLOCKED)
        running.process.send_signal(signal.SIGHUP)
        until(lambda: running.total("reloads_total", "worker_failed") == 1, "the failure")
        assert running.workers() == before and running.get("/v/film/main.m3u8")[0] == 200
        assert running.total("worker_hangs_total") >= 1
        installed.install("")
        running.reload()
        assert not set(before) & set(running.workers())
