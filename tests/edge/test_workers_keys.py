"""Keys at a node with two workers, changed while it runs: rotation, and a token that another issuer has signed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner

from streamgate.access import tokens
from streamgate.access.keys import AnyKey, SharedKey
from streamgate.cli import main
from streamgate.core.config import load
from streamgate.storage import keys
from tests.edge.gated import assets
from tests.edge.nodes import RunningNode, node, until
from tests.signers import Issuer, es256


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    data = tmp_path_factory.mktemp("node")
    with node(assets(tmp_path_factory.mktemp("library")), data / "data", tokens={"without_session": True}) as started:
        yield started


def answers(running: RunningNode, token: str) -> list[int]:
    """What each worker says."""
    with running.each_worker() as connections:
        statuses = []
        for connection in connections:
            connection.request("GET", f"/t/{token}/v/gated/main.m3u8")
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
        return statuses


def command(running: RunningNode, *arguments: str) -> str:
    done = CliRunner().invoke(main, ["keys", *arguments, "--config", str(running.file)])
    assert done.exit_code == 0, done.output
    return done.output


def known(running: RunningNode) -> list[AnyKey]:
    return keys.configured(load(running.file))


def mint(key: AnyKey) -> str:
    assert isinstance(key, SharedKey)
    return tokens.mint(key, asset="gated", session=os.urandom(16), expires=int(time.time()) + 600)


def test_a_rotation_interrupts_nobody_and_a_retired_key_opens_nothing(running: RunningNode) -> None:
    [first] = known(running)
    old = mint(first)
    assert first.kid == b"local.1" and answers(running, old) == [200, 200]
    assert command(running, "new") == "local.2 signs\n"
    new = mint(keys.signer(load(running.file), known(running)))
    assert answers(running, new) == answers(running, old) == [200, 200], "at once, for all have seen the key"
    began = time.monotonic()
    command(running, "retire", "local.1")
    until(lambda: answers(running, old) == [401, 401])
    assert time.monotonic() - began < 10
    assert answers(running, new) == [200, 200]
    words = running.log.read_bytes()
    assert all(key.secret.hex().encode() not in words for key in known(running) if isinstance(key, SharedKey))


def test_a_token_that_another_has_signed(running: RunningNode) -> None:
    issuer = es256()
    token = issuer.token({3: "local", 4: int(time.time()) + 600})
    assert answers(running, token) == [401, 401]
    assert running.admin("POST", "/revocations", {"token": "00", "exp": None})[0] == 400
    path = Path(load(running.file).server.data_folder) / "keys/shop.toml"
    path.touch(0o600)
    path.write_text(issuer.file)
    until(lambda: answers(running, token) == [200, 200])
    for each, verdict in ((token, "good"), (Issuer("ES256", es256(b"x").private).token(), "token_signature")):
        told = json.loads(CliRunner().invoke(main, ["token", "show", each, "--config", str(running.file)]).output)
        assert (told["verdict"], told["sha256"]) == (verdict, sha256(each.encode()).hexdigest())
    status, _ = running.admin("POST", "/revocations", {"token": sha256(token.encode()).hexdigest(), "exp": None})
    assert status == 204
    assert answers(running, token) == [401, 401]
