"""TLS of a node with two workers: the same bytes, the versions and protocols offered, and new certificates by a reload."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.peers.certificate import Certificate, self_signed
from benchmarks.peers.process import free_port
from streamgate.transcode.clip import write_video
from tests.edge.nodes import WAIT_S, RunningNode, node


@pytest.fixture(scope="module")
def port() -> int:
    """Where the node speaks TLS."""
    return free_port()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate, port: int) -> Iterator[RunningNode]:
    """A node that speaks TLS beside plain HTTP."""
    media = tmp_path_factory.mktemp("media")
    write_video(media / "clip.mp4", 128, 72, crf=35, seconds=6)
    tls = {"listen": [f"127.0.0.1:{port}"], "certificate": str(certificate.chain), "key": str(certificate.key)}
    with node(media, tmp_path_factory.mktemp("data"), tls=tls, server={"head_timeout": 1.0}) as made:
        yield made


def trusting(certificate: Path) -> ssl.SSLContext:
    """A client that believes this certificate only."""
    return ssl.create_default_context(cafile=str(certificate))


def get(port: int, path: str, context: ssl.SSLContext) -> tuple[int, bytes]:
    connection = http.client.HTTPSConnection("localhost", port, timeout=WAIT_S, context=context)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def paths(running: RunningNode) -> list[str]:
    """Playlists, an init segment and segments of the clip."""
    _, _, main = running.get("/v/clip/main.m3u8")
    media = next(line for line in main.decode().splitlines() if line.endswith("index.m3u8"))
    folder = f"/v/clip/{media.removesuffix('index.m3u8')}"
    return ["/v/clip/main.m3u8", "/v/clip/main.mpd", f"{folder}index.m3u8", f"{folder}init.mp4", f"{folder}0.m4s"]


def test_the_same_bytes(running: RunningNode, port: int, certificate: Certificate) -> None:
    context = trusting(certificate.chain)
    for path in paths(running):
        expected = running.get(path)
        for _ in range(3):  # made, from a tier, from memory
            assert get(port, path, context) == (200, expected[2])


def test_one_connection_many_requests(running: RunningNode, port: int, certificate: Certificate) -> None:
    connection = http.client.HTTPSConnection("localhost", port, timeout=WAIT_S, context=trusting(certificate.chain))
    with contextlib.closing(connection):
        for path in paths(running) * 3:
            connection.request("GET", path)
            assert connection.getresponse().read() == running.get(path)[2]


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["h2", "http/1.1"], "http/1.1"), (["http/1.1"], "http/1.1"), (["h2"], None), ([], None)]
)
def test_protocols(
    running: RunningNode, port: int, certificate: Certificate, offered: list[str], chosen: str | None
) -> None:
    context = trusting(certificate.chain)
    if offered:
        context.set_alpn_protocols(offered)
    with socket.create_connection(("127.0.0.1", port), WAIT_S) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as encrypted:
            assert encrypted.selected_alpn_protocol() == chosen
            assert encrypted.version() == "TLSv1.3"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions(running: RunningNode, port: int, certificate: Certificate, version: ssl.TLSVersion) -> None:
    context = trusting(certificate.chain)
    context.minimum_version = context.maximum_version = version
    assert get(port, "/health/live", context)[0] == 200


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_older_versions_are_refused(running: RunningNode, port: int, certificate: Certificate) -> None:
    context = trusting(certificate.chain)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        get(port, "/health/live", context)


@pytest.mark.parametrize("said", [b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b""])
def test_who_speaks_no_tls_is_sent_away(running: RunningNode, port: int, said: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), WAIT_S) as plain:
        plain.sendall(said)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while data := plain.recv(1000):
                answer += data
    assert b"HTTP" not in answer
    assert running.get("/health/live")[0] == 200


def test_a_reload_brings_the_new_certificate(running: RunningNode, port: int, certificate: Certificate) -> None:
    before = (certificate.chain.read_bytes(), certificate.key.read_bytes())
    with self_signed() as new:
        with pytest.raises(ssl.SSLCertVerificationError):
            get(port, "/health/live", trusting(new.chain))
        certificate.chain.write_bytes(new.chain.read_bytes())
        certificate.key.write_bytes(new.key.read_bytes())
        try:
            running.reload()
            assert get(port, "/health/live", trusting(new.chain))[0] == 200
        finally:
            certificate.chain.write_bytes(before[0])
            certificate.key.write_bytes(before[1])
            running.reload()
