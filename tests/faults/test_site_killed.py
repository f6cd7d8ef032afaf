"""kill -9 under load, in front of a bucket: of a worker, of the parent, of a node. Somebody serves on, and nothing half-written is served."""

from __future__ import annotations

import configparser
import contextlib
import http.client
import os
import random
import shlex
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.peers.certificate import self_signed
from benchmarks.peers.process import free_port
from streamgate.core.settings import Settings
from tests.conftest import ROOT
from tests.edge.connections_of import clients_of
from tests.edge.nodes import RunningNode, until
from tests.edge.test_balancers import BALANCERS
from tests.faults.test_tiers_faults import Viewer, judge
from tests.faults.two_nodes import (
    Film,
    film_of,
    first_answers,
    in_front_of,
    names,
    origin,
    stored,
    two_nodes,
    unfinished,
)
from tests.services.fault_proxy import Fault
from tests.services.seaweed import SeaweedFS

SOON_S = 2.0
UNIT = ROOT / "config/systemd/streamgate.service"
_VIEWERS = 4
_PACE_S = 0.02


@pytest.fixture(scope="module")
def film() -> Film:
    return film_of()


def machine_took(*pids: int) -> float:
    """Seconds for which these processes were ready to run and others ran instead (proc(5), schedstat)."""
    return max(int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) for pid in pids) / 1e9


class Load:
    """Viewers who ask for ``paths`` again and again, each time on a new connection; every byte they get is compared."""

    def __init__(self, connect: Callable[[], http.client.HTTPConnection], paths: Mapping[str, bytes]) -> None:
        self.outcomes: list[tuple[float, str]] = []
        self.wrong: list[str] = []
        self._connect = connect
        self._paths = paths
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._watch, args=(n,)) for n in range(_VIEWERS)]

    def __enter__(self) -> Load:
        for each in self._threads:
            each.start()
        until(lambda: self.served(), "viewers who are served")
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for each in self._threads:
            each.join()

    def served(self, since: float = 0.0) -> int:
        """How many answers were whole whose request began since then, by the monotonic clock."""
        return sum(what == "whole" for began, what in list(self.outcomes) if began >= since)

    def kinds(self, since: float = 0.0) -> Counter[str]:
        return Counter(what for began, what in list(self.outcomes) if began >= since)

    def _watch(self, number: int) -> None:
        chosen = random.Random(number)
        while not self._over.wait(_PACE_S):
            path = chosen.choice(list(self._paths))
            began = time.monotonic()
            self.outcomes.append((began, self._ask(path)))

    def _ask(self, path: str) -> str:
        right, body = self._paths[path], b""
        with contextlib.closing(self._connect()) as connection:
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                try:
                    body = answer.read()
                except http.client.IncompleteRead as cut:
                    body = cut.partial
                if answer.status != 200:
                    if answer.status < 500:
                        self.wrong.append(f"{path}: {answer.status}")
                    return "refused"
            except (OSError, http.client.HTTPException):
                return "refused"
        if body != right[: len(body)] or int(answer.headers["Content-Length"]) != len(right):
            self.wrong.append(f"{path}: {len(body)} bytes that are not its own")
        return "whole" if len(body) == len(right) else "cut"


def straight_to(running: RunningNode) -> Callable[[], http.client.HTTPConnection]:
    return lambda: http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)


def paths_of(running: RunningNode, film: Film, asset: str) -> dict[str, bytes]:
    video, audio = names(running, asset)
    found = {f"{video}/{n}.m4s": body for n, body in enumerate(film.video)}
    return found | {f"{audio}/{n}.m4s": body for n, body in enumerate(film.audio)}


def nothing_half_written(running: RunningNode, right: Mapping[str, bytes]) -> None:
    """In the folder of the node that is down or running: what has a name is whole and right."""
    kept = stored(running.data)
    assert {path: right[path] for path in kept if path in right} == {path: kept[path] for path in kept if path in right}


def readers(running: RunningNode) -> dict[str, int]:
    """Which worker reads which source for the machine: they listen on names made of the sources."""
    rows = (line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:])
    listening = {fields[6]: fields[7] for fields in rows if len(fields) > 7 and "@streamgate-source" in fields[7]}
    return {
        listening[inode]: pid
        for pid in running.workers()
        for link in links(pid)
        if (inode := link.removeprefix("socket:[").removesuffix("]")) in listening
    }


def links(pid: int) -> list[str]:
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


def test_a_worker_that_reads_for_the_machine(seaweed: SeaweedFS, film: Film, tmp_path: Path) -> None:
    """It dies while an answer of the bucket comes in: who was served by the other notices nothing, its successor serves soon."""
    patient = {"stall_timeout": 20.0, "deadline": 20.0}
    with origin(seaweed) as behind, in_front_of(behind, tmp_path / "data", s3=patient) as running:
        behind.put(film.another(), "film.mp4")
        assert first_answers(running, "film") == [200, 200]
        known = readers(running)
        behind.put(film.another(), "cold.mp4")
        assert first_answers(running, "cold") == [200, 200]
        (reader,) = (pid for source, pid in readers(running).items() if source not in known)
        right = paths_of(running, film, "film")
        path = f"{names(running, 'cold')[0]}/1.m4s"
        behind.proxy.forget()
        behind.proxy.on(Fault(stall_after=400_000), "cold.mp4", method="GET", times=1)
        with Load(straight_to(running), right) as load, running.each_worker() as workers, ThreadPoolExecutor(1) as pool:
            before = clients_of(reader, running.port)
            (other,) = (worker for worker in workers if worker.sock.getsockname()[1] not in before)
            answer = pool.submit(ask, other, path)
            until(lambda: [read for read in behind.reads("cold.mp4") if read.sent], "the first bytes")
            os.kill(reader, signal.SIGKILL)
            began = time.monotonic()
            until(lambda: len(running.workers()) == 2 and reader not in running.workers(), "a successor")
            assert time.monotonic() - began - machine_took(*running.workers()) < SOON_S
            assert answer.result() == (200, film.video[1])
            began = time.monotonic()
            until(lambda: load.served(began) > 4 * _VIEWERS, "viewers who are served")
        assert not load.wrong and set(load.kinds(began)) == {"whole"}
        assert running.total("worker_deaths_total") == 1
        until(lambda: not unfinished(running.data), "the end of all leftovers")
        nothing_half_written(running, right | {path: film.video[1]})


def ask(connection: http.client.HTTPConnection, path: str) -> tuple[int, bytes]:
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.mark.slow
def test_the_parent(seaweed: SeaweedFS, film: Film, tmp_path: Path) -> None:
    """Its workers accept no more, end what they have begun and go; the same command serves beside them soon."""
    with origin(seaweed) as behind:
        behind.put(film.another(), "film.mp4")
        with in_front_of(behind, tmp_path / "data", server={"port": free_port()}) as running:
            right = paths_of(running, film, "film")
            slow, others = list(right)[1], list(right)[0]
            with Load(straight_to(running), {others: right[others]}) as load:
                # Nobody has asked for this yet; the bucket sends it in three seconds.
                behind.proxy.network.bandwidth = len(right[slow]) / 3
                begun = [Viewer(running.port, slow) for _ in range(6)]
                until(lambda: unfinished(running.data), "a file that grows")
                old = running.workers()
                os.kill(running.process.pid, signal.SIGKILL)
                running.end()
                began = time.monotonic()
                until(lambda: not listening(running.port), "nobody accepts any more", 1)
                assert alive(old) == old, "what they have begun they end"
                running.start()
                took = time.monotonic() - began
                new = running.workers()
                assert took - machine_took(running.process.pid) - machine_took(*new) < SOON_S
                assert alive(old) and not set(old) & set(new)
                joined = Viewer(running.port, slow)
                with ThreadPoolExecutor(8) as pool:
                    answers = list(pool.map(Viewer.read, (*begun, joined)))
                assert judge(answers, right[slow]) == {"whole"}
                until(lambda: not alive(old), "their end", 10 + 5)
                behind.proxy.heal()
                began = time.monotonic()
                until(lambda: load.served(began) > 4 * _VIEWERS, "viewers who are served")
            assert not load.wrong and set(load.kinds(began)) == {"whole"}
            assert len(behind.reads("film.mp4")) == len({read.range for read in behind.reads("film.mp4")})
            for path, body in right.items():
                assert running.get(path)[2] == body
            assert running.stop() == 0 and not unfinished(running.data)
            nothing_half_written(running, right)


def alive(pids: Sequence[int]) -> list[int]:
    """Those that still run; a process that nobody waits for any more is none."""
    return [pid for pid in pids if os.path.exists(f"/proc/{pid}/fd/0")]


def listening(port: int) -> bool:
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(fields[1].endswith(f":{port:04X}") and fields[3] == "0A" for fields in rows)


@pytest.mark.slow
@pytest.mark.needs("nginx", "haproxy", "openssl")
@pytest.mark.parametrize("balancer", BALANCERS)
def test_a_node(seaweed: SeaweedFS, film: Film, tmp_path: Path, balancer: str) -> None:
    """All its processes die: the balancer turns to the other node, and back when it has come again."""
    with origin(seaweed) as behind, self_signed() as certificate:
        trusting = ssl.create_default_context(cafile=str(certificate.chain))
        trusting.check_hostname = False
        behind.put(film.another(), "film.mp4")
        with two_nodes(behind, tmp_path) as nodes:
            ports = [each.port for each in nodes]
            right = paths_of(nodes[0], film, "film")
            with BALANCERS[balancer]((ports[0], ports[1]), certificate) as server:

                def through() -> http.client.HTTPConnection:
                    return http.client.HTTPSConnection("127.0.0.1", server.port, timeout=30, context=trusting)

                with Load(through, right) as load:
                    until(lambda: load.served() > 20 and all(node.total("requests_total", "segment") for node in nodes))
                    nodes[0].kill()
                    began = time.monotonic()
                    until(lambda: load.served(began) > 40, "viewers who are served")
                    refused = load.kinds(began)
                    nothing_half_written(nodes[0], right)
                    settings = nodes[0].file.read_text()
                    nodes[0].file.write_text(settings.replace("port = 0\n", f"port = {ports[0]}\n"))
                    nodes[0].start()
                    until(lambda: nodes[0].total("requests_total", "segment"), "the balancer comes back")
            assert not load.wrong and set(refused) == {"whole"}


def unit() -> configparser.SectionProxy:
    parsed = configparser.RawConfigParser(strict=False)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read(UNIT)
    return parsed["Service"]


def test_the_unit_starts_a_node(film: Film, tmp_path: Path) -> None:
    """The command of the unit serves; what it says of the end and of restarts is what this file has seen."""
    service = unit()
    media, settings = tmp_path / "media", tmp_path / "streamgate.toml"
    media.mkdir()
    (media / "film.mp4").write_bytes(film.data)
    settings.write_text(f'[server]\nport = 0\ndata = "{tmp_path / "data"}"\n')
    replaced = {"${STREAMGATE_SOURCE}": str(media), "/etc/streamgate/streamgate.toml": str(settings)}
    program, *words = shlex.split(service["ExecStart"])
    assert program.endswith("/bin/streamgate") and set(replaced) < set(words)
    command = [sys.executable, "-m", "streamgate.cli", *(replaced.get(word, word) for word in words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None and process.stdout.readline().startswith("Watch")
        process.terminate()
        assert process.wait(30) == 0, "no failure, so that it is not started again"
    assert (service["KillMode"], service["Restart"]) == ("process", "on-failure")
    assert service["OOMPolicy"] == "continue"
    drain = Settings().drain
    assert float(service["TimeoutStopSec"]) > drain.delay + drain.deadline + 5


@pytest.mark.needs("systemd-analyze")
def test_the_unit_is_understood(tmp_path: Path) -> None:
    """Its words are systemd's, and it is confined: what a service may do, rated from 0 (nothing) to 10."""
    program = tmp_path / "streamgate"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copy = tmp_path / "streamgate.service"
    copy.write_text(UNIT.read_text().replace("/opt/streamgate/bin/streamgate", str(program)))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", "--no-pager", str(copy)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert rated.returncode == 0, rated.stdout[-500:]
