"""A store behind TLS whose authority is one's own: everything goes over it, and nothing to a server that it does not vouch for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import SSLError

from benchmarks.peers.process import Server, folder, free_port, stopped
from streamgate.core.settings import S3Settings
from streamgate.errors import StreamGateError
from streamgate.storage.objects.s3 import S3Store, bucket, client, open_s3
from tests.services.seaweed import SeaweedFS
from tests.storage.conftest import QUICK

pytestmark = pytest.mark.needs("weed", "nginx", "openssl")

MIB = 1024 * 1024
BYTES = secrets.token_bytes(6 * MIB)
# Certificates are checked, and so are names; nothing of this is a matter of the machine's speed.
SETTINGS = {**QUICK, "connect_timeout": 5.0, "stall_timeout": 5.0, "deadline": 15.0, "part_size": 5 * MIB}
Open = Callable[..., Awaitable[S3Store]]


def _openssl(place: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=place, check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority (ca.pem), another one (other.pem), and a certificate of the first for localhost."""
    place = tmp_path_factory.mktemp("authority")
    new = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    for name in ("ca", "other"):
        _openssl(place, *f"{new} -x509 -days 2 -subj /CN={name} -keyout {name}.key -out {name}.pem".split())
    _openssl(place, *f"{new} -subj /CN=store -keyout key.pem -out request.pem".split())
    (place / "names").write_text("subjectAltName=DNS:localhost")
    _openssl(place, *"x509 -req -in request.pem -CA ca.pem -CAkey ca.key -days 2 -extfile names -out cert.pem".split())
    return place


@pytest.fixture(scope="module")
def server(seaweed: SeaweedFS, authority: Path) -> Iterator[Server]:
    """nginx, which speaks TLS and nothing else, in front of the store; it writes down each request."""
    with folder() as own, stopped(Server("nginx", free_port(), own)) as made:
        user = "user root;" if os.geteuid() == 0 else ""
        kinds = ("client_body", "fastcgi", "uwsgi", "scgi", "proxy")
        places = " ".join(f"{kind}_temp_path {own}/{kind};" for kind in kinds)
        (own / "nginx.conf").write_text(
            f"{user} daemon off; pid {own}/pid; events {{}} http {{ {places}"
            f" log_format one '$scheme $request_method $status'; access_log {own}/requests one;"
            f" server {{ listen 127.0.0.1:{made.port} ssl; client_max_body_size 0;"
            f" ssl_certificate {authority}/cert.pem; ssl_certificate_key {authority}/key.pem;"
            f" location / {{ proxy_pass {seaweed.endpoint}; proxy_set_header Host $http_host; }} }} }}"
        )
        made.run(["nginx", "-e", own / "errors", "-c", own / "nginx.conf"], None)
        made.wait()
        yield made


@pytest.fixture
async def opens(server: Server, s3_environment: SeaweedFS, prefix: str) -> AsyncIterator[Open]:
    opened: list[S3Store] = []

    async def open_with(host: str = "localhost", **settings: Any) -> S3Store:
        endpoint = f"https://{host}:{server.port}"
        opened.append(await open_s3(f"s3://{prefix}", S3Settings(**{**SETTINGS, "endpoint": endpoint, **settings})))
        return opened[-1]

    yield open_with
    for store in opened:
        await store.close()


def seen(server: Server) -> list[str]:
    """The requests that came so far: scheme, method, and the answer's status."""
    file = server.folder / "requests"
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.parametrize("how", ["setting", "environment"])
async def test_all_goes_over_tls(
    opens: Open, server: Server, authority: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """In one piece and in parts, listed, read whole, by ranges and in place, and removed."""
    if how == "environment":
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority / "ca.pem"))
    store = await opens(ca_file=str(authority / "ca.pem") if how == "setting" else "")
    before = len(seen(server))
    await store.put("small", BYTES[:1000], only_new=True)
    info = await store.put("film", BYTES)
    assert [each.key async for each in store.list()] == ["film", "small"]
    assert (await store.stat("film")).etag == info.etag
    assert await store.read("film", etag=info.etag) == BYTES
    assert await store.read("film", 17, MIB, etag=info.etag) == BYTES[17 : 17 + MIB]
    buffer = bytearray(2 * MIB)
    await store.read_into("film", 5, memoryview(buffer), etag=info.etag)
    assert buffer == BYTES[5 : 5 + 2 * MIB]
    await store.delete("small")
    async with asyncio.timeout(10):  # it is written down after the answer
        while "DELETE" not in (asked := seen(server)[before:])[-1]:
            await asyncio.sleep(0.01)
    assert {line.partition(" ")[0] for line in asked} == {"https"}
    assert {line.split()[1] for line in asked} == {"PUT", "POST", "GET", "HEAD", "DELETE"}
    assert sum(line.startswith("https GET 206") for line in asked) == 2


@pytest.mark.parametrize("why", ["another authority", "another name", "the machine's authorities"])
async def test_nothing_is_sent_to_whom_nobody_vouches_for(
    opens: Open, server: Server, authority: Path, why: str
) -> None:
    """It is told as what it is, and not tried again."""
    ca_file = {"another authority": "other.pem", "another name": "ca.pem"}.get(why)
    store = await opens(
        "127.0.0.1" if why == "another name" else "localhost", ca_file=str(authority / ca_file) if ca_file else ""
    )
    before = len(seen(server))
    for call in (store.read("film", 0, 10), store.stat("film"), store.put("film", b"1"), anext(store.list())):
        with pytest.raises(StreamGateError) as caught:
            await call
        assert caught.value.code == "origin_untrusted"
        assert ("mismatch" if why == "another name" else "issuer") in caught.value.detail
    assert seen(server)[before:] == []


@pytest.fixture
async def connected(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[str]]:
    """What an HTTP proxy (RFC 9110 section 9.3.6) of the environment was asked to connect to."""
    asked: list[str] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, where, _ = (await reader.readuntil(b"\r\n\r\n")).split(maxsplit=2)
        asked.append(f"{method.decode()} {where.decode()}")
        host, _, port = where.decode().partition(":")
        there = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    for name in ("NO_PROXY", "no_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
    bucket._proxy.cache_clear()
    yield asked
    bucket._proxy.cache_clear()
    proxy.close()


@pytest.mark.parametrize("ca_file", ["ca.pem", "other.pem"])
async def test_behind_a_proxy_the_store_is_checked_all_the_same(
    opens: Open, server: Server, authority: Path, connected: list[str], ca_file: str
) -> None:
    store = await opens(ca_file=str(authority / ca_file))
    before = len(seen(server))
    calls = [store.put("film", b"bytes"), store.stat("film"), store.read("film", 0, 10)]
    outcomes: list[Any] = []
    for call in calls:
        try:
            outcomes.append(await call)
        except StreamGateError as error:
            outcomes.append(error.code)
    assert set(connected) == {f"CONNECT localhost:{server.port}"}
    if ca_file == "ca.pem":
        assert outcomes[1].size == 5 and outcomes[2] == b"bytes"
    else:
        assert outcomes == ["origin_untrusted"] * 3 and seen(server)[before:] == []


@pytest.mark.parametrize(("host", "by"), [("localhost", "ca"), ("127.0.0.1", "ca"), ("localhost", "other")])
async def test_who_gives_credentials_is_checked_too(
    authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, by: str
) -> None:
    """By the authorities of AWS's own configuration, whichever the store's are."""
    asked: list[bytes] = []
    said = (
        b"<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>GIVEN</AccessKeyId>"
        b"<SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>"
        b"</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said))
        writer.close()

    secure = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    secure.load_cert_chain(authority / "cert.pem", authority / "key.pem")
    (tmp_path / "token").write_text("token")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=secure) as listening:
        given = {
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_WEB_IDENTITY_TOKEN_FILE": tmp_path / "token",
            "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/reader",
            "AWS_ENDPOINT_URL_STS": f"https://{host}:{listening.sockets[0].getsockname()[1]}",
            "AWS_CA_BUNDLE": authority / f"{by}.pem",
            "AWS_MAX_ATTEMPTS": "1",
        }
        for name, value in given.items():
            monkeypatch.setenv(name, str(value))
        found = await client._session(client._load())._session.get_credentials()
        if (host, by) == ("localhost", "ca"):
            assert (await found.get_frozen_credentials()).access_key == "GIVEN" and asked
        else:
            with pytest.raises(SSLError):
                await found.get_frozen_credentials()
            assert not asked


@pytest.mark.parametrize("content", [None, b"no certificate"])
async def test_a_file_that_holds_no_authorities(opens: Open, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_bytes(content)
    with pytest.raises(StreamGateError) as caught:
        await opens(ca_file=str(tmp_path / "ca.pem"))
    assert caught.value.code == "config_invalid" and "ca.pem" in caught.value.detail
