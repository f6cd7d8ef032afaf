"""``streamgate cache`` and how commands reach a server, over a Unix socket and over TLS."""

from __future__ import annotations

import http.server
import io
import json
import socketserver
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from benchmarks.peers.certificate import Certificate, self_signed
from streamgate.cli import main
from streamgate.tables import show_cache

TOLD = {
    "tiers": {
        "memory": {"bytes": 12_345_678, "objects": 1234, "hits": 900, "purged": 3},
        "disk": {"bytes": 4_000_000_000, "objects": 56, "hits": 50, "purged": 0},
        "redis": {"hits": 0},
    },
    "misses": 50,
}


class Server:
    """Answers every request with ``status`` and ``answer``, and remembers the last one."""

    def __init__(
        self, listening: type[socketserver.BaseServer], address: Any, tls: ssl.SSLContext | None = None
    ) -> None:
        self.status, self.answer, self.seen = 200, b"{}", ("", "", "", "")
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                outer.seen = (self.command, self.path, body, self.headers.get("Authorization", ""))
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(outer.answer)))
                self.end_headers()
                self.wfile.write(outer.answer)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

            def address_string(self) -> str:
                return ""

        self.server = listening(address, Handler)
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)  # type: ignore[attr-defined]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def tell(self, status: int, answer: object) -> None:
        self.status, self.answer = status, answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    started = Server(socketserver.UnixStreamServer, str(tmp_path / "admin.sock"))
    yield started
    started.stop()


@pytest.fixture(scope="module")
def certificate() -> Iterator[Certificate]:
    with self_signed() as made:
        yield made


@pytest.fixture
def secure(certificate: Certificate) -> Iterator[Server]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate.chain, certificate.key)
    started = Server(http.server.HTTPServer, ("127.0.0.1", 0), tls)
    yield started
    started.stop()


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.mark.parametrize(
    ("given", "sent", "said"),
    [
        (["--asset", "film"], {"asset": "film", "soft": False}, "purged in every worker: asset film (0.012 s)\n"),
        (["--tag", "kind:mpd", "--soft"], {"tag": "kind:mpd", "soft": True}, "marked as stale in every worker: tag kind:mpd (0.012 s)\n"),
        (["--prefix", "/v/a"], {"prefix": "/v/a", "soft": False}, "purged in every worker: prefix /v/a (0.012 s)\n"),
        (["--url", "https://x/v/a/main.mpd"], {"url": "https://x/v/a/main.mpd", "soft": False}, "purged in every worker: url https://x/v/a/main.mpd (0.012 s)\n"),
    ],
)  # fmt: skip
def test_purge(server: Server, tmp_path: Path, given: list[str], sent: dict[str, Any], said: str) -> None:
    server.tell(200, {**sent, "seconds": 0.012})
    done = command("cache", "--socket", tmp_path / "admin.sock", "purge", *given)
    assert (done.exit_code, done.output) == (0, said)
    method, path, body, _ = server.seen
    assert (method, path, json.loads(body)) == ("POST", "/purges", sent)


@pytest.mark.parametrize("given", [[], ["--asset", "a", "--tag", "b"], ["--soft"], ["--nonsense"]])
def test_purge_of_what(tmp_path: Path, given: list[str]) -> None:
    assert command("cache", "--socket", tmp_path / "none", "purge", *given).exit_code == 2


def test_what_the_server_refuses_is_told(server: Server, tmp_path: Path) -> None:
    server.tell(503, {"code": "not_acknowledged", "detail": "1 of 2 workers have not answered"})
    done = command("cache", "--socket", tmp_path / "admin.sock", "purge", "--asset", "film")
    assert (done.exit_code, done.output) == (1, "error: 1 of 2 workers have not answered [not_acknowledged]\n")


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b"\xff", b'"x"'])
def test_what_is_no_streamgate(server: Server, tmp_path: Path, answer: bytes) -> None:
    server.tell(500, answer)
    done = command("admin", "--socket", tmp_path / "admin.sock", "status")
    assert done.exit_code == 1 and "[admin_unreachable]" in done.output and "Traceback" not in done.output


def test_nobody_there(tmp_path: Path) -> None:
    done = command("cache", "--socket", tmp_path / "none", "stat")
    assert done.exit_code == 1 and "[admin_unreachable]" in done.output


def test_stat(server: Server, tmp_path: Path) -> None:
    server.tell(200, TOLD)
    told = command("cache", "--socket", tmp_path / "admin.sock", "stat", "--json")
    assert json.loads(told.output) == TOLD and server.seen[:2] == ("GET", "/cache")
    lines = command("cache", "--socket", tmp_path / "admin.sock", "stat").output.splitlines()
    cells = [line.split() for line in lines if line.strip() and "─" not in line]
    assert cells == [
        ["Tier", "Objects", "Bytes", "Hits", "Part", "Purged"],
        ["memory", "1", "234", "12.3", "MB", "900", "90.0", "%", "3"],
        ["disk", "56", "4000.0", "MB", "50", "5.0", "%", "0"],
        ["redis", "0", "0.0", "%"],
        ["misses", "50", "5.0", "%"],
    ]


def test_stat_of_a_node_that_has_done_nothing() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    show_cache({"tiers": {"memory": {"hits": 0}}, "misses": 0}, console)
    assert "memory" in console.export_text()


def test_from_another_machine(secure: Server, certificate: Certificate, tmp_path: Path) -> None:
    secure.tell(200, TOLD)
    token = tmp_path / "token"
    token.write_text("secret-secret\n")
    url = f"https://localhost:{secure.server.server_address[1]}"  # type: ignore[index]
    there = ["--url", url, "--ca", certificate.chain]
    assert command("cache", *there, "--token-file", token, "stat").exit_code == 0
    assert secure.seen[3] == "Bearer secret-secret"
    assert command("admin", *there, "status").exit_code == 0 and secure.seen[3] == ""
    # Nothing is said to a server that cannot prove who it is.
    before = secure.seen
    done = command("cache", "--url", url, "--token-file", token, "purge", "--asset", "film")
    assert done.exit_code == 1 and "[admin_unreachable]" in done.output and "secret" not in done.output
    assert secure.seen == before


@pytest.mark.parametrize("url", ["http://localhost:1", "localhost:1", "https://", "https://localhost/path"])
def test_addresses_that_are_none(url: str) -> None:
    done = command("cache", "--url", url, "stat")
    assert done.exit_code == 2 and "--url" in done.output


@pytest.mark.parametrize("option", ["--token-file", "--ca", "--cert"])
def test_files_that_are_not_there(tmp_path: Path, option: str) -> None:
    done = command("cache", "--url", "https://localhost:1", option, tmp_path / "none", "stat")
    assert done.exit_code == 1 and "[config_invalid]" in done.output and "Traceback" not in done.output
