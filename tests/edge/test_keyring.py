"""Keys while a node runs: what is in their folder counts within a second, in every worker and on every connection."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, MutableMapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from edge.keyring import Keyring
from streamgate.access import keys, tokens
from streamgate.access.keys import Defaults, SharedKey
from streamgate.errors import StreamGateError
from streamgate.native.cat import Verifier
from streamgate.storage.keys import Folder
from tests.edge.nodes import RunningNode, node, until

DEFAULTS = Defaults("streamgate", ("local",))
ONE, TWO, THREE = (
    SharedKey(name, bytes(range(at, at + 32)), "streamgate", ("local",), DEFAULTS.require)
    for at, name in enumerate((b"one", b"two", b"three"))
)


def keep(folder: Path, key: SharedKey, name: str = "") -> Path:
    """Write a key's file, whole from the beginning."""
    path = folder / f"{name or key.kid.decode()}.toml"
    aside = folder / ".aside"
    aside.write_text(keys.write(key.kid.decode(), key.secret))
    aside.chmod(0o600)
    aside.rename(path)
    return path


def minted(key: SharedKey) -> str:
    return tokens.mint(key, asset="film", session=os.urandom(16), expires=int(time.time()) + 1000)


@pytest.fixture
def folder_of_keys(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    folder.mkdir()
    return folder


def kids(folder: Folder) -> list[str] | None:
    found = folder.look()
    return None if found is None else [key.kid.decode() for key in found.keys]


def test_what_a_look_finds(folder_of_keys: Path) -> None:
    folder = Folder(folder_of_keys, DEFAULTS)
    assert kids(folder) == []
    one, two = keep(folder_of_keys, ONE), keep(folder_of_keys, TWO)
    assert kids(folder) == ["one", "two"]
    assert kids(folder) is None, "nothing new"
    one.unlink()
    assert kids(folder) == ["two"]
    # Changed under its name: the kid that was there is gone.
    keep(folder_of_keys, THREE, "two")
    assert kids(folder) == ["three"]
    two.unlink()
    assert kids(folder) == []
    folder_of_keys.rmdir()
    assert kids(folder) is None, "as empty as before"


@pytest.mark.parametrize("damage", ["text", "mode", "same kid"])
def test_a_file_that_is_wrong(folder_of_keys: Path, damage: str) -> None:
    """Its key counts on and it is told of once; what else is in the folder is not held up by it."""
    one, two = keep(folder_of_keys, ONE), keep(folder_of_keys, TWO)
    folder = Folder(folder_of_keys, DEFAULTS)
    folder.look()
    if damage == "text":
        one.write_text("kid = ")
    elif damage == "mode":
        one.chmod(0o644)
    else:
        one = keep(folder_of_keys, ONE, "zzz")
    two.unlink()
    found = folder.look()
    assert found is not None and [key.kid for key in found.keys] == [b"one"]
    assert len(found.problems) == 1 and str(one) in found.problems[0] and ONE.secret.hex() not in found.problems[0]
    assert folder.look() is None
    one.unlink()
    assert kids(folder) == (["one"] if damage == "same kid" else [])


async def test_the_keys_change_for_tokens_that_were_read(
    folder_of_keys: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    one = keep(folder_of_keys, ONE)
    verifier = Verifier()
    ring = Keyring(Folder(folder_of_keys, DEFAULTS), verifier, 0.02)
    token = minted(ONE)
    ring.start()
    async with asyncio.timeout(10):
        while not _good(verifier, token):
            await asyncio.sleep(0.01)
        read = verifier.read(token)
        one.unlink()
        while _good(verifier, token):
            await asyncio.sleep(0.01)
    with pytest.raises(StreamGateError) as caught:
        verifier.check(read, path="/v/film/main.m3u8", now=int(time.time()))
    assert caught.value.code == "token_key"
    await ring.stop()
    assert [entry["kids"] for entry in logs if entry["event"] == "the keys of playback tokens have changed"] == [[]]


async def test_what_could_not_be_taken_is_tried_again(folder_of_keys: Path) -> None:
    keep(folder_of_keys, ONE)
    verifier, told = Verifier(), list[frozenset[bytes]]()

    class Failing:
        failing = True

        def configure(self, _: Any) -> None:
            if self.failing:
                raise RuntimeError("for a moment")

    foreign: Any = Failing()
    ring = Keyring(Folder(folder_of_keys, DEFAULTS), verifier, 0, foreign, told.append)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            await ring.look()
        assert _good(verifier, minted(ONE)), "these count all the same"
    foreign.failing = False
    await ring.look()
    generation = verifier.generation
    await ring.look()
    assert verifier.generation == generation, "and then no more"
    assert told == [frozenset({b"one"})] * 3


def _good(verifier: Verifier, token: str) -> bool:
    try:
        verifier.read(token)
    except StreamGateError:
        return False
    return True


@pytest.fixture
def running(folder: Path, tmp_path: Path, folder_of_keys: Path) -> Iterator[RunningNode]:
    keep(folder_of_keys, ONE)
    tokens_of = {"keys": str(folder_of_keys)}
    with node(folder, tmp_path / "data", edge={"require_token": True}, tokens=tokens_of) as started:
        yield started


def status(connection: HTTPConnection, token: str) -> int:
    connection.request("GET", f"/t/{token}/v/film/main.m3u8")
    answer = connection.getresponse()
    answer.read()
    return answer.status


def test_two_workers_and_connections_that_are_kept(running: RunningNode, folder_of_keys: Path) -> None:
    old, new = minted(ONE), minted(TWO)
    generation = running.status()["generation"]
    with running.each_worker() as kept:
        assert len(kept) == 2
        for _ in range(2):  # the second time on the hot path
            assert [status(each, old) for each in kept] == [200, 200]
        assert [status(each, new) for each in kept] == [401, 401]
        two = keep(folder_of_keys, TWO)
        until(lambda: [status(each, new) for each in kept] == [200, 200], "a key that was added", 5)
        (folder_of_keys / "one.toml").unlink()
        removed = time.monotonic()
        until(lambda: [status(each, old) for each in kept] == [401, 401], "a key that was removed", 5)
        assert time.monotonic() - removed < 2.5, "a second, and what a busy machine takes"
        assert [status(each, new) for each in kept] == [200, 200]
        two.write_text("kid = ")

        def told() -> list[dict[str, Any]]:
            return [e for e in running.events() if e["event"] == "a key of playback tokens is not taken"]

        until(lambda: len(told()) == 2, "a line of each worker", 5)
        assert [event["level"] for event in told()] == ["error"] * 2
        assert [status(each, new) for each in kept] == [200, 200], "as before"
        two.unlink()
        until(lambda: [status(each, new) for each in kept] == [401, 401], "the end of it", 5)
        assert len(told()) == 2
    assert running.status()["generation"] == generation, "nothing was reloaded"
