"""A reload brings new code: what was installed meanwhile answers afterwards, and nobody notices but by the answers."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.edge.arrivals import arriving
from tests.edge.installed import Installed
from tests.edge.nodes import RunningNode, node, until

PATH = "/v/film/main.m3u8"
# What is installed over the first release: every answer tells which one it is from.
RELEASE = """

_without_release = representation


def representation(entry, scope):
    head, content = _without_release(entry, scope)
    return {{**head, "X-Release": "{name}"}}, content
"""


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path / "code", "heads")


@pytest.fixture
def running(folder: Path, tmp_path: Path, installed: Installed) -> Iterator[RunningNode]:
    with node(folder, tmp_path / "data", code=installed.folder, server={"backlog": 4096}) as started:
        yield started
        assert started.stop() == 0


def releases(running: RunningNode) -> set[str | None]:
    """Which releases answer on new connections, at both workers, before and after a path is in memory."""
    with running.each_worker() as connections:
        return {told(connection)[0] for connection in connections for _ in range(3)}


def told(connection: HTTPConnection) -> tuple[str | None, bool]:
    """The release that answers, and whether it ends the connection."""
    connection.request("GET", PATH)
    answer = connection.getresponse()
    assert (answer.status, answer.read()[:7]) == (200, b"#EXTM3U")
    return answer.getheader("X-Release"), (answer.getheader("Connection") or "").lower() == "close"


def test_new_code_without_a_reset(running: RunningNode, installed: Installed) -> None:
    assert releases(running) == {None}
    with running.each_worker() as held, arriving(running.port, PATH, rate=200.0) as arrivals:
        assert [told(connection) for connection in held] == [(None, False)] * 2
        for name, before in (("two", None), ("three", "two")):
            installed.install(RELEASE.format(name=name))
            # Nothing changes before it is asked for.
            assert releases(running) == {before}
            running.reload()
            assert releases(running) == {name}
            if before is None:
                # Who was connected hears the end from the code that he has talked to.
                assert [told(connection) for connection in held] == [(None, True)] * 2
    assert not arrivals.lost, arrivals.outcomes
    assert arrivals.outcomes["ok"] == arrivals.started > 0


def test_code_that_does_not_run_changes_nothing(running: RunningNode, installed: Installed) -> None:
    before = running.workers()
    installed.install("\n    this is no Python\n")
    running.process.send_signal(signal.SIGHUP)
    until(lambda: running.total("reloads_total", "worker_failed") == 1, "the failure")
    assert running.workers() == before and releases(running) == {None}
    installed.install(RELEASE.format(name="two"))
    running.reload()
    assert releases(running) == {"two"}
