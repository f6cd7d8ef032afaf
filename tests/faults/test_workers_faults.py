"""Reloads, and workers that are killed, while clients come: who is lost, and who must not be."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge.arrivals import Arrivals, arriving
from tests.edge.connections_of import clients_of, waiting_at
from tests.edge.nodes import RunningNode, node, until
from tests.media_factory import Video, make

PATH = "/v/film/main.m3u8"
ROUTE = 'route="multivariant"'
RATE = 500.0  # new connections a second
QUEUE = 20  # connections that wait when a worker is killed


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningNode]:
    (tmp_path / "assets").mkdir()
    make(tmp_path / "assets/film.mp4", Video(gop=25), None, seconds=4)
    # Room for all who come while a busy machine starts a process: the kernel would turn away more.
    with node(tmp_path / "assets", tmp_path / "data", server={"backlog": 4096}) as started:
        assert started.get(PATH)[0] == 200
        yield started


def nobody_is_reset(running: RunningNode, reloads: int) -> Arrivals:
    with arriving(running.port, PATH, RATE) as arrivals:
        for _ in range(reloads):
            running.reload()
            # Not one reload under fewer: a machine that is busy may make clients late, but not so that they do not come.
            now = time.monotonic()
            until(lambda now=now: arrivals.all_came(now), "all who were due during the reload")  # type: ignore[misc]
    assert arrivals.started == int(arrivals.seconds * RATE) > RATE
    assert not arrivals.lost, arrivals.outcomes
    assert arrivals.outcomes["ok"] == sum(arrivals.outcomes.values()) == arrivals.started
    # One more: the first request of the fixture.
    until(lambda: running.total("requests_total", ROUTE) == arrivals.started + 1, "every request counted")
    assert running.total("reloads_total", "ok") == reloads
    assert running.process.poll() is None
    return arrivals


def test_reloads_reset_nobody(running: RunningNode) -> None:
    nobody_is_reset(running, 3)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_fifty_reloads_reset_nobody(running: RunningNode, capsys: pytest.CaptureFixture[str]) -> None:
    arrivals = nobody_is_reset(running, 50)
    with capsys.disabled():
        print(
            f"\n50 reloads in {arrivals.seconds:.0f} s under {arrivals.rate:.1f} new connections/s:"
            f" {arrivals.started} served, none lost; the latest came {arrivals.latest:.2f} s late"
        )
    until(lambda: len(running.status()["workers"]) == 2, "the end of those who left")


def killed(running: RunningNode, kills: int) -> None:
    """Only whom a dead worker had accepted may be lost; those in its queue are served by its successor."""
    held: set[int] = set()
    queued: set[int] = set()
    with arriving(running.port, PATH) as arrivals:
        for _ in range(kills):
            pid = until(lambda: running.workers() if len(running.workers()) == 2 else None, "two workers")[0]
            os.kill(pid, signal.SIGSTOP)
            held |= clients_of(pid, running.port)
            queued |= until(lambda: queue if len(queue := waiting_at(running.port)) >= QUEUE else None, "a queue")
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: pid not in running.workers() and len(running.workers()) == 2, "a successor")  # type: ignore[misc]
    lost = set(arrivals.lost)
    assert lost <= held, (arrivals.outcomes, lost - held)
    # What was in a dead worker's queue was neither in its hands nor lost.
    assert queued - held and not lost & (queued - held)
    assert arrivals.outcomes["ok"] == arrivals.started - len(lost)
    # What a worker did for those it had accepted may have been counted or not when it died; all else is.
    until(lambda: running.total("requests_in_flight") == 0)
    counted = running.total("requests_total", ROUTE) - 1
    assert abs(counted - arrivals.outcomes["ok"]) <= len(held)
    assert running.total("worker_deaths_total") == kills


def test_kill_9_of_workers(running: RunningNode) -> None:
    killed(running, 2)


@pytest.mark.slow
def test_five_times_kill_9_of_workers(running: RunningNode) -> None:
    killed(running, 5)


def test_a_worker_that_cannot_start_is_tried_again_without_haste(running: RunningNode, tmp_path: Path) -> None:
    """Its successors find no assets; the other worker serves on, and when the assets are back, so do two."""
    (tmp_path / "assets").rename(tmp_path / "away")
    victim, other = running.workers()
    os.kill(victim, signal.SIGKILL)
    until(
        lambda: sum(event["event"] == "a worker cannot be started" for event in running.events()) >= 3, "three attempts"
    )
    events = running.events()
    assert [event["wait"] for event in events if event["event"] == "a worker died and is replaced"] == [0.0]
    waits = [event["wait"] for event in events if event["event"] == "a worker cannot be started"]
    assert waits == sorted(waits) and waits[0] > 0
    assert other in running.workers()
    (tmp_path / "away").rename(tmp_path / "assets")
    until(lambda: len(running.workers()) == 2, "two workers again")
