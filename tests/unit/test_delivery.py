"""The delivery benchmark: its goals, its doubts, what it compares, its payloads, and its peers as real processes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from benchmarks import delivery, payloads
from benchmarks.answers import Answer, ask, same
from benchmarks.load import Report
from benchmarks.peers.certificate import self_signed
from benchmarks.peers.nginx import nginx
from benchmarks.peers.plain import plain
from benchmarks.peers.process import Server, folder, free_port, stopped
from benchmarks.peers.varnish import varnish
from benchmarks.rounds import Contestant, Goals, contest
from tests.conftest import ROOT


def report(
    rate: float, cpu: float, *, busy: float = 0.5, least: int = 10, in_flight: float = 64.0, errors: int = 0
) -> Report:
    """A run of a second with ``rate`` requests, each of ``cpu`` µs."""
    return Report(
        requests=round(rate),
        requests_with_warmup=round(rate),
        bytes=1,
        seconds=1.0,
        latency={"p99": 0.001},
        connections=64,
        opened=64,
        completions={"min": least, "median": 20, "max": 30},
        in_flight=in_flight,
        cpu=busy,
        server_cpu=rate * cpu / 1e6,
        errors={"status": errors},
        first_error="status: 404",
    )


def test_goals_are_held_against_the_better_rival() -> None:
    peers = [
        Contestant("quick", lambda: report(1000, 9), rival=True),
        Contestant("frugal", lambda: report(500, 4), rival=True),
        Contestant("faster than both", lambda: report(9000, 1)),
    ]
    rows = list(contest("64 KB", lambda: report(2000, 5), peers, Goals(1.3, 1.7), 6))
    assert [(row.peer, row.metric) for row in rows] == [
        (name, metric) for name in ("quick", "frugal", "faster than both") for metric in ("requests", "CPU a request")
    ]
    assert [(row.ratio, row.goal, row.met) for row in rows] == [
        (2.0, 1.3, True),
        (pytest.approx(1.8), None, None),
        (4.0, None, None),
        (0.8, 1.3, False),
        (pytest.approx(2 / 9), None, None),
        (pytest.approx(0.2), None, None),
    ]
    rates = list(contest("miss", lambda: report(2000, 5), peers[:1], Goals(0.5, rate=False), 6))
    assert [(row.goal, row.met) for row in rates] == [(None, None), (0.5, True)]


def test_every_round_begins_with_another() -> None:
    order: list[str] = []

    def noting(name: str) -> Callable[[], Report]:
        def run() -> Report:
            order.append(name)
            return report(100, 1)

        return run

    peers = [Contestant(name, noting(name)) for name in "bc"]
    assert len(list(contest("1 KB", noting("a"), peers, Goals(), 3))) == 4
    assert "".join(order) == "abcbcacab"


@pytest.mark.parametrize(
    ("doubtful", "told"),
    [
        (report(1000, 9, busy=0.91), "the client was the limit (theirs)"),
        (report(1000, 9, least=0), "connections starved (theirs)"),
        (report(1000, 9, in_flight=30.0), "connections starved (theirs)"),
    ],
)
def test_what_was_not_the_server_is_void(doubtful: Report, told: str) -> None:
    peers = [Contestant("peer", lambda: doubtful, rival=True)]
    for row in contest("1 KB", lambda: report(5000, 1), peers, Goals(1.4), 6):
        assert row.met == "void"
        if row.metric == "requests":
            assert told in row.note and "client 50 % and" in row.note


def test_failures_end_it() -> None:
    with pytest.raises(RuntimeError, match="ours: 3 requests failed; status: 404"):
        list(contest("1 KB", lambda: report(10, 1, errors=3), [], Goals(), 1))
    with pytest.raises(RuntimeError, match="ours: no request was answered in 4 runs"):
        list(contest("1 KB", lambda: report(0, 1), [], Goals(), 1))
    with pytest.raises(click.BadParameter, match="no 1g; there are 1k"):
        list(delivery.run(runs=1, seconds=1, chosen=["1g"]))


def test_answers_must_be_the_same() -> None:
    ours = Answer(200, b"x" * 500, {}, b"body")
    assert same(ours, Answer(200, b"x" * 550, {}, b"body"), "peer") == "heads 500 and 550 B"
    for other, told in (
        (Answer(206, b"x" * 500, {}, b"body"), "peer 206"),
        (Answer(200, b"x" * 500, {}, b"Body"), "answers differ"),
        (Answer(200, b"x" * 551, {}, b"body"), "heads 500 and 551 B"),
    ):
        with pytest.raises(RuntimeError, match=told):
            same(ours, other, "peer")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("size", "count"), [(1024, 3), (65536, 2)])
def test_payloads_have_their_size(size: int, count: int, cache: Path) -> None:
    made = payloads.exact(size, count)
    files = [made.root / path.removeprefix("/") for path in made.paths]
    assert [file.stat().st_size for file in files] == [size] * count == list(made.sizes)
    assert len({file.read_bytes() for file in files}) == count
    # Decodes: the filler is filler.
    film = next(made.assets.iterdir())
    command = [
        "ffprobe",
        "-v",
        "error",
        "-count_frames",
        "-show_entries",
        "stream=nb_read_frames",
        "-of",
        "csv=p=0",
        str(film),
    ]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == str(count)
    # Made once; the twin anew where the renditions have got other names.
    before = film.stat().st_mtime_ns
    files[0].parent.rename(files[0].parent.with_name("v64-0000000000000000"))
    assert payloads.exact(size, count) == made and files[0].exists() and film.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="at least 1024"):
        payloads.exact(1000, 1)


@pytest.mark.needs("nginx", "varnishd", "openssl")
def test_peers_send_the_files_to_those_who_may_have_them(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "v").mkdir(parents=True)
    body = os.urandom(70_000)
    (root / "v" / "0.m4s").write_bytes(body)
    field = {"Cache-Control": 'private, x="y"'}
    with contextlib.ExitStack() as stack:
        certificate = stack.enter_context(self_signed())
        origin = stack.enter_context(nginx(root, None, checks=False, headers=field)).port
        started = [
            stack.enter_context(server)
            for server in (
                nginx(root, None, headers=field),
                nginx(root, None, tuned=True, headers=field),
                nginx(root, None, tls=certificate, ssl_buffer="4k", headers=field),
                plain(root, None, headers=field),
                varnish(origin, None),
                nginx(root, None, origin=stack.enter_context(nginx(root, None, checks=False)).port, headers=field),
            )
        ]
        folders = [server.folder for server in started]
        pids = [pid for server in started for pid in server.pids()]
        for n, server in enumerate(started):
            tls = n == 2
            for _ in range(2):
                answer = ask(server.port, server.path("/v/0.m4s"), tls=tls)
                assert (answer.status, answer.body) == (200, body)
                assert (
                    answer.fields["Content-Type"] == "video/mp4"
                    and answer.fields["Cache-Control"] == field["Cache-Control"]
                )
            if n != 4:  # Varnish has no module for that
                assert ask(server.port, "/t/1-0/v/0.m4s" if n == 3 else "/v/0.m4s", tls=tls).status in (401, 403)
            assert all(Path(f"/proc/{pid}").exists() for pid in server.pids())
        logged = folders[0] / "access.log"
        assert logged.read_text().count("/v/0.m4s") == 3
    assert not any(place.exists() for place in folders) and not any(Path(f"/proc/{pid}").exists() for pid in pids)


@contextlib.contextmanager
def broken(code: str) -> Iterator[Server]:
    with folder() as own, stopped(Server("broken", free_port(), own)) as server:
        server.run([sys.executable, "-c", code], None)
        server.wait()
        yield server


def test_a_peer_that_does_not_start_says_why() -> None:
    with pytest.raises(RuntimeError, match="broken does not start: out of luck"), broken("exit('out of luck')"):
        pass


def test_descendants_are_counted() -> None:
    code = "import subprocess, sys, time; subprocess.Popen(['sh', '-c', 'sleep 60 & wait']); time.sleep(60)"
    with folder() as own, stopped(Server("family", 0, own)) as server:
        server.run([sys.executable, "-c", code], None)
        limit = time.monotonic() + 20
        while len(server.pids()) < 3:
            assert time.monotonic() < limit
        assert server.pids()[0] == server.processes[0].pid
        for pid in server.pids()[1:]:
            os.kill(pid, 9)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.needs("nginx", "varnishd", "openssl")
def test_the_smallest_run_prints_every_row(cache: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "delivery", "--quick", "--json"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    cases = dict.fromkeys(row["case"] for row in rows)
    assert list(cases) == [case.title for case in delivery.CASES.values()]
    rows, logged = [row for row in rows if row["peer"]], [row for row in rows if row["metric"] == "logged"]
    assert all(row["ours"] > 0 and row["peer_value"] > 0 for row in rows)
    assert [row["case"] for row in logged] == list(cases) and all(row["met"] for row in logged)
    told = [line for line in done.stderr.splitlines() if "heads" in line and "Little's law" in line]
    rated = [f"{row['case']}, {row['peer']}: " for row in rows if row["metric"] == "requests"]
    assert all(any(line.startswith(beginning) for line in told) for beginning in rated)
    held = {row["case"] for row in rows if row["goal"] is not None}
    assert held == set(cases) - {"miss that fills, 2.3 MB video"}
