"""The process: it listens, announces itself, and stops without breaking a download."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from edge.server import listen, url
from streamgate.core.settings import ServerSettings
from streamgate.errors import StreamGateError
from tests.edge.harness import Folder, running, settings
from tests.media_factory import Audio, Video, make

PROGRAM = """
import sys
from pathlib import Path
from edge.server import run
from streamgate.core.config import load
sys.exit(run(load(), sys.argv[1], announce=lambda url: print(url, flush=True)))
"""


class Process:
    """A server in a process of its own."""

    def __init__(self, root: Path, **variables: str) -> None:
        environment = {**os.environ, "STREAMGATE__SERVER__PORT": "0", "STREAMGATE__LOG__FORMAT": "json", **variables}
        self.popen = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROGRAM, str(root)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
        assert self.popen.stdout is not None
        self.url = self.popen.stdout.readline().strip()
        self.port = int(self.url.rpartition(":")[2] or 0)

    def get(self, path: str) -> socket.socket:
        """A connection on which a request was sent."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        return sock

    def end(self) -> tuple[int, list[dict[str, object]]]:
        """The exit code and the events that were logged."""
        _, logged = self.popen.communicate(timeout=20)
        return self.popen.returncode, [json.loads(line) for line in logged.splitlines()]


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def make(**variables: str) -> Process:
        started.append(Process(folder, **variables))
        return started[-1]

    yield make
    for process in started:
        process.popen.kill()
        process.popen.communicate()


def whole(sock: socket.socket, received: bytes = b"") -> tuple[bytes, bytes]:
    """Head and body of the one answer that is under way."""
    while b"\r\n\r\n" not in received:
        received += sock.recv(65536) or pytest.fail("the connection ended")
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(re.search(rb"Content-Length: (\d+)", head)[1])  # type: ignore[index]
    while len(body) < length:
        body += sock.recv(65536) or pytest.fail("the connection ended")
    assert len(body) == length
    return head, body


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stops_on_a_signal(start: Callable[..., Process], number: signal.Signals) -> None:
    process = start()
    assert process.url.startswith("http://127.0.0.1:") and not process.url.endswith("/")
    with process.get("/health/ready") as sock:
        assert b"200 OK" in whole(sock)[0]
        process.popen.send_signal(number)
        # An idle connection is ended at once.
        assert sock.recv(4096) == b""
    code, events = process.end()
    assert code == 0
    assert [e["event"] for e in events] == ["listening", "request", "stopping", "stopped"]
    assert events[1]["path"] == "/health/ready" and events[1]["status"] == 200
    assert events[-1]["connections_cut"] == 0


async def test_a_download_under_way_is_finished(folder: Path) -> None:
    """In this process, so that the moment of the stop is known: while the segment is being cut."""
    import threading

    from edge import media

    gate, begun = threading.Event(), threading.Event()
    original = media.PlanCut.read

    def read(cut: media.PlanCut, start: int, length: int) -> bytes:
        begun.set()
        assert gate.wait(10)
        return original(cut, start, length)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(media.PlanCut, "read", read)
        async with running(Folder(folder)) as edge:
            lines = (await edge.ask("/v/film/main.m3u8")).body.decode().splitlines()
            name = next(line for line in lines if line.startswith("v")).partition("/")[0]
            async with edge.connect() as (_, idle), edge.connect() as (reader, writer):
                del idle
                writer.write(f"GET /v/film/{name}/0.m4s HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                assert await asyncio.to_thread(begun.wait, 10)
                edge.asked.set()
                while edge.node.health.state != "stopping":
                    await asyncio.sleep(0)
                gate.set()
                received = await reader.read()
                head, _, body = received.partition(b"\r\n\r\n")
                assert b"200 OK" in head and b"Connection: close" in head
                assert f"Content-Length: {len(body)}".encode() in head
            await edge.task


def test_a_foreign_container_is_converted_once(tmp_path: Path) -> None:
    root, cache = tmp_path / "assets", tmp_path / "cache"
    root.mkdir()
    make(root / "clip.mkv", Video(gop=25), Audio(), seconds=2)
    # It is asked again and again, and nobody reads its log meanwhile.
    quiet = {"STREAMGATE__EDGE__FAILURE_TTL": "0.1", "STREAMGATE__LOG__ACCESS": "false"}
    process = Process(root, XDG_CACHE_HOME=str(cache), **quiet)
    try:
        with process.get("/v/clip/main.m3u8") as sock:
            head, body = whole(sock)
        assert b"503" in head and b"Retry-After: 2" in head
        assert json.loads(body)["code"] == "asset_preparing"
        while b"503" in head:
            with process.get("/v/clip/main.m3u8") as sock:
                head, body = whole(sock)
        assert b"200 OK" in head and body.startswith(b"#EXTM3U")
        assert [path.suffix for path in (cache / "streamgate" / "remuxed").iterdir()] == [".mp4"]
        assert [path.name for path in root.iterdir()] == ["clip.mkv"]
        process.popen.send_signal(signal.SIGTERM)
        assert process.end()[0] == 0
    finally:
        process.popen.kill()
        process.popen.communicate()


def noise(path: Path) -> None:
    """A film of four seconds that hardly compresses: one segment of about 10 MB."""
    rng = np.random.default_rng(1)
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as output:
        stream = output.add_stream(
            "libx264", rate=25, options={"preset": "ultrafast", "x264-params": "qp=8:scenecut=0"}
        )
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for _ in range(100):
            picture = rng.integers(0, 256, (360, 320), np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="yuv420p")))
        output.mux(stream.encode(None))


def test_sigterm_in_the_middle_of_a_download(start: Callable[..., Process], tmp_path: Path, folder: Path) -> None:
    """A segment of several megabytes to a client that has taken its first bytes only: more than sockets buffer."""
    noise(tmp_path / "noise.mp4")
    process = Process(tmp_path, STREAMGATE__EDGE__BLOCK="65536", STREAMGATE__EDGE__MAX_BUFFERED_SEGMENT="65536")
    try:
        with process.get("/v/noise/main.m3u8") as sock:
            lines = whole(sock)[1].decode().splitlines()
        name = next(line for line in lines if line.startswith("v")).partition("/")[0]
        with socket.socket() as sock:
            sock.settimeout(20)
            sock.connect(("127.0.0.1", process.port))
            sock.sendall(f"GET /v/noise/{name}/0.m4s HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            first = sock.recv(1)
            process.popen.send_signal(signal.SIGTERM)
            assert process.popen.stderr is not None
            while "stopping" not in process.popen.stderr.readline():
                assert process.popen.poll() is None
            head, body = whole(sock, first)
            assert b"200 OK" in head
            assert len(body) > 8_000_000
            assert sock.recv(1) == b""
        code, events = process.end()
        assert code == 0
        # The request ended after the stop began, and nothing had to be cut.
        assert [e["event"] for e in events] == ["request", "stopped"]
        assert events[0]["bytes"] == len(body) and events[1]["connections_cut"] == 0
    finally:
        process.popen.kill()
        process.popen.communicate()


async def test_not_ready_while_it_drains(folder: Path) -> None:
    async with running(Folder(folder), settings(drain={"delay": 0.3})) as edge:
        await edge.ask("/health/ready")
        edge.asked.set()
        while edge.node.health.state != "draining":
            await asyncio.sleep(0)
        # It is told, and serves on as ever for a while.
        answer = await edge.ask("/health/ready")
        assert (answer.status, answer.code) == (503, "stopping")
        playlist = await edge.ask("/v/film/main.m3u8")
        assert playlist.status == 200
        assert "Connection" not in answer.headers and "Connection" not in playlist.headers
        await edge.task
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", edge.port)


async def test_the_deadline_cuts_what_does_not_end(folder: Path) -> None:
    import threading

    from edge import media

    gate, begun = threading.Event(), threading.Event()

    def read(cut: media.PlanCut, start: int, length: int) -> bytes:
        begun.set()
        gate.wait(10)
        return bytes(length)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(media.PlanCut, "read", read)
        async with running(Folder(folder), settings(drain={"deadline": 0.1})) as edge:
            lines = (await edge.ask("/v/film/main.m3u8")).body.decode().splitlines()
            name = next(line for line in lines if line.startswith("v")).partition("/")[0]
            async with edge.connect() as (reader, writer):
                writer.write(f"GET /v/film/{name}/0.m4s HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                assert await asyncio.to_thread(begun.wait, 10)
                await edge.stop()
                assert await reader.read() == b""
                assert edge.node.telemetry.value("requests_aborted", cause="stop") == 1
            gate.set()


def test_a_second_signal_ends_at_once(start: Callable[..., Process]) -> None:
    process = start(STREAMGATE__DRAIN__DELAY="300")
    with process.get("/health/ready") as sock:
        assert b"200 OK" in whole(sock)[0]
    process.popen.send_signal(signal.SIGTERM)
    assert process.popen.stderr is not None
    while "stopping" not in process.popen.stderr.readline():
        assert process.popen.poll() is None
    process.popen.send_signal(signal.SIGTERM)
    assert process.popen.wait(20) == 128 + signal.SIGTERM


def test_an_address_in_use(tmp_path: Path) -> None:
    with listen(ServerSettings(port=0)) as taken:
        with pytest.raises(StreamGateError) as caught:
            listen(ServerSettings(port=taken.getsockname()[1]))
    assert caught.value.code == "listen_failed"
    assert "in use" in caught.value.detail
    with pytest.raises(StreamGateError) as caught:
        listen(ServerSettings(host="no such host.invalid"))
    assert caught.value.code == "listen_failed"


def test_url() -> None:
    for host, shown in (("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")):
        if ":" in host and not socket.has_ipv6:
            continue
        with listen(ServerSettings(host=host, port=0)) as listening:
            assert url(listening) == f"http://{shown}:{listening.getsockname()[1]}"


def test_a_root_that_is_not_there(start: Callable[..., Process], tmp_path: Path) -> None:
    process = Process(tmp_path / "none")
    _, logged = process.popen.communicate(timeout=20)
    assert process.popen.returncode == 1
    assert "source_not_found" in logged
