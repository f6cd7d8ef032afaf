"""Who asks, and how often: PROXY and forwarded headers of trusted proxies, rate limits that all workers count together."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamgate.transcode.clip import write_video
from tests.edge.nodes import WAIT_S, RunningNode, node, until
from tests.unit.test_proxy_protocol import V4, v2

GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
V1 = b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 443\r\n"


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with something to serve."""
    folder = tmp_path_factory.mktemp("media")
    write_video(folder / "clip.mp4", 128, 72, crf=35, seconds=2)
    return folder


@pytest.fixture(scope="module")
def balanced(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node behind a balancer of this machine that speaks the PROXY protocol."""
    data = tmp_path_factory.mktemp("balanced")
    server = {"trusted_proxies": ["127.0.0.0/8"], "proxy_protocol": True, "head_timeout": 1.0}
    log = {"access": True, "access_file": str(data / "access.log"), "whole_addresses": True}
    with node(media, data, server=server, log=log) as made:
        yield made


def ask(running: RunningNode, *pieces: bytes) -> bytes:
    """What comes back on a connection that says this."""
    with socket.create_connection(("127.0.0.1", running.port), WAIT_S) as connection:
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            for piece in pieces:
                connection.sendall(piece)
            while data := connection.recv(65536):
                answer += data
        return answer


def logged(running: RunningNode, marker: str) -> str:
    """The address in the log's line about the request whose trace has this id."""

    def find() -> str:
        lines = (running.data / "access.log").read_text().splitlines()
        return next(
            (str(line.get("client", "none")) for line in map(json.loads, lines) if line.get("trace_id") == marker), ""
        )

    return str(until(find, "the line in the access log"))


_numbers = iter(range(1, 1000))


def trace() -> tuple[str, bytes]:
    """An id that no other request has, and the field that carries it."""
    marker = f"{next(_numbers):032x}"
    return marker, f"traceparent: 00-{marker}-00f067aa0ba902b7-01\r\n".encode()


@pytest.mark.parametrize(
    ("header", "fields", "client"),
    [
        (V1, b"", "192.0.2.1"),
        (v2(0x21, 0x11, V4), b"", "192.0.2.1"),
        (v2(0x20, 0x00, b""), b"", "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n", b"", "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n", b"X-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9"),
        (
            b"PROXY UNKNOWN\r\n",
            b"Forwarded: for=203.0.113.9;proto=https\r\nX-Forwarded-For: 9.9.9.9\r\n",
            "203.0.113.9",
        ),
        (V1, b"X-Forwarded-For: 203.0.113.9\r\n", "192.0.2.1"),
    ],
    ids=["v1", "v2", "v2 local", "v1 unknown", "x-forwarded-for", "forwarded", "forwarded by a stranger"],
)
def test_the_client_is_who_the_proxy_says(balanced: RunningNode, header: bytes, fields: bytes, client: str) -> None:
    marker, field = trace()
    assert b" 200 OK\r\n" in ask(balanced, header + GET + field + fields + b"\r\n")
    assert logged(balanced, marker) == client


def test_a_header_in_pieces(balanced: RunningNode) -> None:
    marker, field = trace()
    whole = V1 + GET + field + b"\r\n"
    assert b" 200 OK\r\n" in ask(balanced, *(whole[at : at + 1] for at in range(len(whole))))
    assert logged(balanced, marker) == "192.0.2.1"


@pytest.mark.parametrize("said", [GET + b"\r\n", b"PROXY TCP4 nonsense\r\n" + GET + b"\r\n", b"PROXY", b""])
def test_without_a_good_header_there_is_no_answer(balanced: RunningNode, said: bytes) -> None:
    assert ask(balanced, said) == b""
    assert balanced.total("connections_failed_total") > 0


def test_two_workers_count_one_address_together(media: Path, tmp_path: Path) -> None:
    limits = {"requests_per_address": 0.001, "burst_per_address": 20}
    with node(media, tmp_path / "data", limits=limits) as running:
        statuses = [running.get("/health/live")[0] for _ in range(40)]
        assert sorted(statuses) == [200] * 20 + [429] * 20
        status, headers, body = running.get("/health/live")
        assert (status, json.loads(body)["code"]) == (429, "rate_limited")
        assert int(headers["Retry-After"]) >= 1
        assert headers["Cache-Control"] == "no-store"
        # Each connection was a new one, so that the kernel spread them over the workers.
        served = running.counters()
        assert (
            sum(v for k, v in served.items() if k.startswith("streamgate_errors_total") and "rate_limited" in k) == 21
        )


def test_connections_of_one_address(media: Path, tmp_path: Path) -> None:
    with (
        node(media, tmp_path / "data", limits={"connections_per_address": 2}) as running,
        contextlib.ExitStack() as stack,
    ):
        answers = []
        for _ in range(40):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", running.port), WAIT_S))
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
                answers.append(connection.recv(65536))
        # Each of the two workers keeps two; the rest are told to come again, and closed.
        assert sum(b" 200 OK\r\n" in answer for answer in answers) == 4
        assert running.total("connections_refused_total") == 36
        stack.close()
        until(lambda: running.get("/health/live")[0] == 200, "a place")


def test_a_log_that_was_renamed_is_opened_anew(media: Path, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    given = {"access": True, "access_file": str(log), "access_format": "combined"}
    with node(media, tmp_path / "data", log=given) as running:
        running.get("/health/live?secret=1")
        until(lambda: log.exists() and log.read_text().count("\n") == 1, "the first line")
        log.rename(tmp_path / "rotated.log")
        running.process.send_signal(signal.SIGUSR1)

        def again() -> bool:
            running.get("/health/live")
            return log.exists() and log.stat().st_size > 0

        until(again, "the new file")
        line = (tmp_path / "rotated.log").read_text().splitlines()[0]
        assert line.startswith("127.0.0.0 - - [")
        assert '"GET /health/live HTTP/1.1" 200' in line
        assert "secret" not in line


def test_a_log_that_cannot_be_opened_keeps_it_from_starting(media: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"log\.access_file"):
        with node(media, tmp_path / "data", log={"access": True, "access_file": str(tmp_path)}):
            pass
