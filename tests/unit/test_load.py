"""The load client counts right, refuses what is wrong, and ends."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.load import Load, LoadError, Target, client

pytestmark = pytest.mark.needs("gcc")

BODY = b"x" * 1000
Answer = Callable[[str, int], bytes | None]


class Server:
    """A thread a connection; ``answer(path, n)`` gives the bytes of the connection's n-th answer, None ends it.

    With ``once`` whatever comes is answered, and then the connection ends.
    """

    def __init__(self, answer: Answer, tls: ssl.SSLContext | None = None, *, once: bool = False) -> None:
        self.answer = answer
        self.tls = tls
        self.once = once
        self.asked: list[str] = []
        self.heads: list[bytes] = []
        self.closing = False
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self.listening.getsockname()[1]
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    def _accept(self) -> None:
        while True:
            connection, _ = self.listening.accept()
            if self.closing:
                connection.close()
                return
            self.threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self.threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                stream = self.tls.wrap_socket(connection, server_side=True) if self.tls else connection
                self._answer(stream)
                stream.close()
            except OSError:
                pass

    def _answer(self, stream: socket.socket) -> None:
        head, number = b"", 0
        while piece := stream.recv(65536):
            if self.once:
                stream.sendall(self.answer("", 0) or b"")
                return
            head += piece
            if not head.endswith(b"\r\n\r\n"):
                continue
            assert head.count(b"\r\n\r\n") == 1, "one request under way"
            self.heads.append(head)
            self.asked.append(head.split()[1].decode())
            answer = self.answer(self.asked[-1], number)
            if answer is None:
                return
            stream.sendall(answer)
            head, number = b"", number + 1

    def close(self) -> None:
        self.closing = True
        socket.create_connection(("127.0.0.1", self.port)).close()
        for thread in self.threads:
            thread.join(10)
        self.listening.close()


@pytest.fixture
def server() -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(answer: Answer, tls: ssl.SSLContext | None = None, *, once: bool = False) -> Server:
        started.append(Server(answer, tls, once=once))
        return started[-1]

    yield start
    for one in started:
        one.close()


def whole(status: str = "200 OK", body: bytes = BODY, length: int | None = None, more: str = "") -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\ncontent-length: {size}\r\n{more}\r\n".encode() + body


ONE = [Target("/a", len(BODY))]


def test_counts_what_the_server_answered(server: Callable[..., Server]) -> None:
    one = server(lambda path, n: whole())
    report = Load(one.port, ONE, requests=101, connections=4, headers=["Range: bytes=0-", "X-Two: 2"]).run()
    assert report.requests == report.requests_with_warmup == 101 == len(one.asked)
    assert report.bytes == 101 * len(whole()) and report.failed == 0 and report.opened == 4
    assert report.completions["min"] > 0 and 0 < report.latency["p50"] <= report.latency["p999"] * 1.02
    assert report.latency["p99"] <= report.latency["max"] * 1.02 and 0 < report.cpu < report.seconds * 1.5
    head = b"GET /a HTTP/1.1\r\nHost: localhost:%d\r\nRange: bytes=0-\r\nX-Two: 2\r\n\r\n"
    assert set(one.heads) == {head % one.port}


def test_ends_in_time_and_agrees_with_littles_law(server: Callable[..., Server]) -> None:
    def slowly(path: str, n: int) -> bytes:
        time.sleep(0.02)  # what the answer takes
        return whole()

    one = server(slowly)
    began = time.monotonic()
    report = Load(one.port, ONE, seconds=0.5, warmup=0.1, connections=5).run()
    assert time.monotonic() - began < 3 and 0.5 <= report.seconds < 1
    assert report.requests < report.requests_with_warmup
    assert report.latency["p50"] > 0.02 and report.fair and abs(report.in_flight - 5) < 1


def test_a_starved_connection_is_seen(server: Callable[..., Server]) -> None:
    served = threading.Semaphore(3)

    def some(path: str, n: int) -> bytes | None:
        if n == 0 and not served.acquire(blocking=False):
            time.sleep(0.8)
            return None
        return whole()

    report = Load(server(some).port, ONE, seconds=0.4, connections=4).run()
    assert report.completions["min"] == 0 < report.completions["median"] and not report.fair


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (whole("404 Not Found"), "status", "404 instead of 200 for /a"),
        (whole(body=b"y" * 999), "length", "999 bytes instead of 1000 for /a"),
        (whole(body=BODY + b"!", length=1000), "length", "more bytes than announced"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "malformed", "no Content-Length"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "malformed", "0 instead of 200"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 5000 + b"\r\n\r\n", "malformed", "too long"),
    ],
)
def test_wrong_answers_are_told_and_not_counted(
    server: Callable[..., Server], answer: bytes, kind: str, told: str
) -> None:
    one = server(lambda path, n: whole() if n == 0 else answer)
    report = Load(one.port, ONE, seconds=5, connections=1, errors=3).run()
    assert report.seconds < 3 and report.requests == report.errors[kind] == report.failed == 3
    assert report.first_error.startswith(kind) and told in report.first_error


@pytest.mark.parametrize(("answer", "kind"), [(None, "unanswered"), (whole(length=1001), "cut"), (b"HTTP/1", "cut")])
def test_connections_that_end_too_early(server: Callable[..., Server], answer: bytes | None, kind: str) -> None:
    one = server(lambda path, n: answer, once=True)
    report = Load(one.port, [Target("/a")], seconds=5, connections=2, errors=4).run()
    assert report.requests == 0 and report.errors[kind] == report.failed >= 4


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    report = Load(port, ONE, seconds=5, errors=8, connections=8).run()
    assert report.requests == 0 and report.errors["connect"] == 8


def test_closed_after_an_answer_is_no_error(server: Callable[..., Server]) -> None:
    one = server(lambda path, n: whole(more="Connection: close\r\n"))
    report = Load(one.port, ONE, requests=20, connections=2).run()
    assert (report.requests, report.failed) == (20, 0) and report.opened in (20, 21)
    other = server(lambda path, n: whole())
    report = Load(other.port, ONE, requests=20, connections=2, per_connection=5).run()
    assert (report.requests, report.failed) == (20, 0) and report.opened in (4, 5)


def test_targets_in_turn_by_zipf_and_once_each(server: Callable[..., Server]) -> None:
    targets = [Target(f"/{n}", len(BODY)) for n in range(50)]
    one = server(lambda path, n: whole())
    Load(one.port, targets, requests=100, connections=1).run()
    assert one.asked == [target.path for target in targets] * 2
    drawn = []
    for seed in (1, 1, 2):
        one.asked.clear()
        Load(one.port, targets, requests=2000, connections=1, zipf=1.0, seed=seed).run()
        drawn.append(list(one.asked))
    assert drawn[0] == drawn[1] != drawn[2]
    often = [drawn[0].count(target.path) for target in targets]
    total = sum(1 / n for n in range(1, 51))
    assert all(abs(often[n - 1] - 2000 / n / total) < 60 for n in (1, 2, 5, 50))
    one.asked.clear()
    report = Load(one.port, targets, seconds=5, connections=10, each=True).run()
    assert sorted(one.asked) == sorted(target.path for target in targets) and report.seconds < 3
    assert set(report.completions.values()) == {5}


def test_slow_readers_take_what_their_rate_allows(server: Callable[..., Server]) -> None:
    body = bytes(4_000_000)
    one = server(lambda path, n: whole(body=body))
    report = Load(one.port, [Target("/a")], seconds=1, connections=3, rate=20_000, receive_buffer=4096).run()
    assert report.requests == 0 == report.failed and 3 * 15_000 < report.bytes <= 3 * 20_500
    # Bytes that the kernel drops are counted as those that are copied.
    report = Load(one.port, [Target("/a", len(body))], requests=3, seconds=5, connections=1, discard=True).run()
    assert report.bytes == 3 * len(whole(body=body))


@pytest.mark.needs("openssl")
def test_tls(server: Callable[..., Server], tmp_path: Path) -> None:
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost".split()
    subprocess.run([*made, "-keyout", tmp_path / "key", "-out", tmp_path / "cert"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    context.set_alpn_protocols(["http/1.1"])
    body = bytes(300_000)
    one = server(lambda path, n: whole(body=body), context)
    report = Load(one.port, [Target("/a", len(body))], requests=30, seconds=10, connections=3, tls=True).run()
    assert (report.requests, report.failed) == (30, 0) and report.bytes == 30 * len(whole(body=body))
    plain = server(lambda path, n: whole(), once=True)
    assert Load(plain.port, ONE, seconds=5, connections=2, errors=2, tls=True).run().errors["tls"] == 2


def test_a_watched_process_is_charged(server: Callable[..., Server]) -> None:
    one = server(lambda path, n: whole())
    with subprocess.Popen(["sh", "-c", "while :; do :; done"]) as busy:
        try:
            report = Load(one.port, ONE, seconds=0.5, connections=1, watch=[busy.pid]).run()
        finally:
            busy.kill()
    assert 0.05 < report.server_cpu <= report.seconds * 1.1


def test_what_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="no targets"):
        Load(1, []).run()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(LoadError, match="no C compiler"):
        client.build()
