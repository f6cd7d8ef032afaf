"""The operator's way in over TLS: nobody gets in without the token, or the certificate, that the settings want."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, MutableMapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner, Result

from benchmarks.peers.certificate import Certificate, self_signed
from edge.admin_access import Access, TokenFile
from edge.control import Message
from edge.purges import Purge
from edge.rates import Rates
from edge.warm_orders import Order
from streamgate.cli import main
from streamgate.core.settings import AdminSettings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from tests.edge.harness import Answer
from tests.edge.nodes import node

TOKEN = "t" * 43
OTHER = "u" * 43


class Told:
    """A node that remembers what operators asked of it."""

    def __init__(self) -> None:
        self.telemetry = Telemetry()
        self.asked: list[Any] = []
        self.acknowledged = True

    def status(self) -> dict[str, object]:
        return {"state": "ready"}

    def reload(self) -> None:
        self.asked.append("reload")

    def stop(self) -> None:
        self.asked.append("stop")

    async def revoke(self, kind: str, subject: bytes, exp: int | None) -> None:
        self.asked.append((kind, subject, exp))

    async def warm(self, order: Order) -> AsyncIterator[Message]:
        self.asked.append(order)
        yield {"done": True}

    async def purge(self, purge: Purge) -> None:
        self.asked.append((purge.kind, purge.subject, purge.soft))
        if not self.acknowledged:
            raise StreamGateError("not_acknowledged")


class Client:
    """Somebody who knows the address, and perhaps more."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def ask(self, method: str, path: str, token: str | None = None, body: object = None, **given: Any) -> Answer:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        data = given.pop("data", None if body is None else json.dumps(body))
        async with self._session.request(method, self.url + path, headers=headers, data=data) as answer:
            return Answer(answer.status, answer.headers, await answer.read())


@contextlib.asynccontextmanager
async def listening(control: Told, authority: ssl.SSLContext, **settings: Any) -> AsyncIterator[Client]:
    access = await asyncio.to_thread(Access, control, AdminSettings(listen="127.0.0.1:0", **settings))
    url = await access.start()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=authority, limit=0)) as session:
        try:
            yield Client(url.replace("127.0.0.1", "localhost"), session)
        finally:
            await session.close()
            await access.stop()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(f"{TOKEN}\n")
    return path


@pytest.fixture
def served(certificate: Certificate) -> dict[str, str]:
    """Settings of what the server shows."""
    return {"certificate": str(certificate.chain), "key": str(certificate.key)}


@pytest.fixture
def trusting(certificate: Certificate) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate.chain))


@pytest.fixture
def control() -> Told:
    return Told()


async def test_the_token_opens_every_route_and_nothing_else_does(
    control: Told, served: dict[str, str], trusting: ssl.SSLContext, token_file: Path
) -> None:
    routes = [
        ("GET", "/status", None, 200), ("GET", "/metrics", None, 200), ("GET", "/counters", None, 200),
        ("GET", "/cache", None, 200), ("POST", "/reload", None, 202), ("POST", "/drain", None, 202),
        ("POST", "/revocations", {"session": "00ff", "exp": None}, 204), ("POST", "/purges", {"asset": "film"}, 200),
        ("GET", "/nothing", None, 404),
    ]  # fmt: skip
    settings: dict[str, Any] = {**served, "token_file": str(token_file), "failure_burst": 1000}
    async with listening(control, trusting, **settings) as client:
        for method, path, body, status in routes:
            for wrong in (None, OTHER, "", TOKEN[:-1], TOKEN + "t", "ü" * 10):
                refused = await client.ask(method, path, wrong, body)
                assert (refused.status, refused.code) == (401, "admin_token"), (path, wrong)
                assert (
                    refused.headers["WWW-Authenticate"] == "Bearer" and refused.headers["Cache-Control"] == "no-store"
                )
            assert not control.asked
            answer = await client.ask(method, path, TOKEN, body)
            assert answer.status == status and answer.headers["Server"] == "StreamGate", path
            control.asked.clear()
        assert control.telemetry.value("admin_refused") == 6 * len(routes)


async def test_purges_and_what_is_wrong_with_them(
    control: Told, served: dict[str, str], trusting: ssl.SSLContext, token_file: Path
) -> None:
    async with listening(control, trusting, **served, token_file=str(token_file)) as client:
        done = await client.ask("POST", "/purges", TOKEN, {"tag": "kind:segment", "soft": True})
        assert done.status == 200 and control.asked == [("tag", "kind:segment", True)]
        told = done.json()
        assert (told["tag"], told["soft"]) == ("kind:segment", True) and told["seconds"] >= 0
        control.acknowledged = False
        late = await client.ask("POST", "/purges", TOKEN, {"asset": "film"})
        assert (late.status, late.code) == (503, "not_acknowledged") and late.headers["Retry-After"] == "1"
        for data in ("", "{}", "x" * 4000, "[" * 4000, '{"asset": "a b"}', b"\xff\xfe"):
            assert (await client.ask("POST", "/purges", TOKEN, data=data)).code == "request_malformed", data
        assert (await client.ask("POST", "/purges", TOKEN, data="x" * 5000)).status == 413


async def test_wrong_tokens_are_bounded(
    control: Told, served: dict[str, str], trusting: ssl.SSLContext, token_file: Path
) -> None:
    settings: dict[str, Any] = {**served, "token_file": str(token_file), "failures": 0.001, "failure_burst": 3}
    async with listening(control, trusting, **settings) as client:
        assert (await client.ask("GET", "/status", TOKEN)).status == 200
        for _ in range(3):
            assert (await client.ask("GET", "/status", OTHER)).status == 401
        for token in (OTHER, TOKEN, None):
            assert (await client.ask("GET", "/status", token)).code == "rate_limited"


def test_attempts_are_forgotten_in_time() -> None:
    now = [0.0]
    failures = Rates(0.5, 2, lambda: now[0])
    for address in ("a", "b"):
        failures.add(address)
        failures.add(address)
    assert failures.too_many("a") and failures.too_many("b") and not failures.too_many("c")
    now[0] = 2.0
    assert not failures.too_many("a")
    for number in range(10_000):
        failures.add(str(number))
    assert len(failures._levels) <= 4096


async def test_the_token_is_read_again(
    control: Told, served: dict[str, str], trusting: ssl.SSLContext, token_file: Path
) -> None:
    async with listening(control, trusting, **served, token_file=str(token_file)) as client:
        assert (await client.ask("GET", "/status", TOKEN)).status == 200
        await asyncio.to_thread(token_file.write_text, OTHER)
        assert (await client.ask("GET", "/status", TOKEN)).status == 401
        assert (await client.ask("GET", "/status", OTHER)).status == 200
        # What makes it public, or takes it away, lets nobody in and tells strangers nothing.
        for break_it in (lambda: token_file.chmod(0o644), token_file.unlink):
            await asyncio.to_thread(break_it)
            refused = await client.ask("GET", "/status", OTHER)
            assert refused.code == "admin_token" and str(token_file).encode() not in refused.body


@pytest.mark.parametrize(
    ("text", "mode"), [("t" * 31, 0o600), ("", 0o600), ("a b" * 20, 0o600), ("ü" * 40, 0o600), ("t" * 5000, 0o600)]
    + [(TOKEN, mode) for mode in (0o640, 0o604, 0o644, 0o660)],
)  # fmt: skip
def test_files_that_hold_no_secret_token(tmp_path: Path, text: str, mode: int) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(StreamGateError) as caught:
        TokenFile(path).read()
    assert caught.value.code == "config_invalid"
    assert not text or text not in caught.value.detail


@pytest.mark.parametrize(
    "missing",
    [{}, {"certificate": ""}, {"client_ca": "/nowhere"}, {"token_file": "/nowhere/token"}, {"key": "/nowhere"}],
)
async def test_there_is_no_listening_without_what_protects_it(
    control: Told, served: dict[str, str], token_file: Path, missing: dict[str, str]
) -> None:
    given = {**served, **({"token_file": str(token_file)} if missing else {}), **missing}
    with pytest.raises(StreamGateError) as caught:
        access = await asyncio.to_thread(Access, control, AdminSettings(listen="127.0.0.1:0", **given))  # type: ignore[arg-type]
        await access.start()
    assert caught.value.code == "config_invalid"


@pytest.mark.parametrize("address", ["nonsense", "unix:/tmp/x", "127.0.0.1", "127.0.0.1:99999"])
async def test_addresses_that_are_none(control: Told, served: dict[str, str], token_file: Path, address: str) -> None:
    settings = AdminSettings(listen=address, token_file=str(token_file), **served)  # type: ignore[arg-type]
    access = await asyncio.to_thread(Access, control, settings)
    with pytest.raises(StreamGateError) as caught:
        await access.start()
    assert caught.value.code == "config_invalid"


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A client's certificate by an authority, and one that somebody made for himself."""
    folder = tmp_path_factory.mktemp("clients")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    for name in ("ca", "stranger"):
        openssl("req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}")
    openssl("req", *key[:-2], "-keyout", "client.key", "-out", "client.csr", "-subj", "/CN=operator")
    openssl("x509", "-req", "-in", "client.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-out", "client.pem")  # fmt: skip
    return {path.name: path for path in folder.iterdir()}


async def test_a_clients_certificate(
    control: Told, served: dict[str, str], certificate: Certificate, identities: dict[str, Path], token_file: Path
) -> None:
    def shown(name: str) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(certificate.chain))
        if name:
            made.load_cert_chain(identities[f"{name}.pem"], identities[f"{name}.key"])
        return made

    both = {"token_file": str(token_file), "client_ca": str(identities["ca.pem"])}
    async with listening(control, shown("client"), **served, client_ca=both["client_ca"]) as client:
        assert (await client.ask("GET", "/status")).status == 200
    async with listening(control, shown("client"), **served, **both) as client:
        assert (await client.ask("GET", "/status")).status == 401
        assert (await client.ask("GET", "/status", TOKEN)).status == 200
    for name in ("", "stranger"):
        async with listening(control, shown(name), **served, **both) as client:
            with pytest.raises(aiohttp.ClientError):
                await client.ask("GET", "/status", TOKEN)


async def test_connections_are_bounded(
    control: Told, served: dict[str, str], trusting: ssl.SSLContext, token_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Strangers who hold connections, without a word or with half a handshake, do not keep operators out for long."""
    monkeypatch.setattr("edge.admin_access._FIRST_S", 0.5)
    async with listening(control, trusting, **served, token_file=str(token_file), connections=4) as client:
        port = int(client.url.rpartition(":")[2])
        held = [
            await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname="localhost")
            for _ in range(4)
        ]
        with pytest.raises(aiohttp.ClientError):
            await client.ask("GET", "/status", TOKEN)
        for reader, writer in held:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                assert await asyncio.wait_for(reader.read(), 10) == b""
            writer.close()
        assert (await client.ask("GET", "/status", TOKEN)).status == 200
        # Without TLS nothing is said at all.
        with socket.create_connection(("127.0.0.1", port), 10) as plain:
            plain.sendall(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"HTTP" not in await asyncio.to_thread(plain.recv, 100)


async def test_no_log_holds_a_token(
    control: Told, served: dict[str, str], trusting: ssl.SSLContext, token_file: Path,
    logs: list[MutableMapping[str, Any]],
) -> None:  # fmt: skip
    async with listening(control, trusting, **served, token_file=str(token_file)) as client:
        await client.ask("GET", "/status", OTHER)
        await client.ask("GET", "/status", TOKEN)
    assert [line["event"] for line in logs] == ["an operator's token is wrong"]
    assert OTHER not in str(logs) and TOKEN not in str(logs)
    assert os.stat(token_file).st_mode & 0o077 == 0


def test_a_node_is_looked_after_from_another_machine(
    folder: Path, tmp_path: Path, certificate: Certificate, token_file: Path
) -> None:
    """By the same commands, and to the same limit; a reload shows the certificate that is there by then."""
    shown = {name: tmp_path / f"{name}.pem" for name in ("chain", "key")}
    admin = {"socket": str(tmp_path / "admin.sock"), "listen": "127.0.0.1:0", "token_file": str(token_file)}
    admin |= {"certificate": str(shown["chain"]), "key": str(shown["key"])}

    def show(certificate: Certificate) -> None:
        shown["chain"].write_bytes(certificate.chain.read_bytes())
        shown["key"].write_bytes(certificate.key.read_bytes())

    show(certificate)
    few = {"purges": 0.001, "burst_purges": 3}
    with self_signed() as new, node(folder, tmp_path, admin=admin, limits=few) as running:
        url = running.status()["admin_url"]

        def command(group: str, *arguments: str, ca: Certificate = certificate) -> Result:
            there = ["--url", url, "--token-file", str(token_file), "--ca", str(ca.chain)]
            return CliRunner().invoke(main, [group, *there, *arguments])

        assert json.loads(command("admin", "status").output)["state"] == "ready"
        done = command("cache", "purge", "--asset", "film", "--soft")
        assert done.exit_code == 0 and done.output.startswith("marked as stale in every worker: asset film (")
        assert "memory" in command("cache", "stat").output
        for _ in range(2):
            assert running.admin("POST", "/purges", {"asset": "film"})[0] == 200
        refused = running.admin("POST", "/purges", {"asset": "film"})
        assert (refused[0], refused[1]["code"]) == (429, "rate_limited")
        assert "[rate_limited]" in command("cache", "purge", "--asset", "film").output
        show(new)
        assert command("admin", "status", ca=new).exit_code == 1
        running.reload()
        assert command("admin", "status", ca=new).exit_code == 0
        assert "[admin_unreachable]" in command("admin", "status").output
