"""Conditions of tokens at a node with two workers: one use among all of them, and databases that are replaced under it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from streamgate.access import tokens
from tests.edge.gated import KEY, assets, key_folder
from tests.edge.nodes import RunningNode, node, until
from tests.geoip_factory import number, place, write

pytestmark = pytest.mark.slow
HERE = "127.0.0.0/8"


def signed(claims: dict[int | str, Any]) -> str:
    base: dict[int | str, Any] = {1: "streamgate", 3: "local", 4: int(time.time()) + 1000, 7: os.urandom(16)}
    return tokens.sign(KEY, {**base, **claims})


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("geoip")
    write(folder / "city.mmdb", {HERE: place("DE", "BE")})
    write(folder / "asn.mmdb", {HERE: number(64500)})
    return folder


@pytest.fixture(scope="module")
def running(databases: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    library, data = assets(tmp_path_factory.mktemp("library")), tmp_path_factory.mktemp("node")
    files = {"country": str(databases / "city.mmdb"), "asn": str(databases / "asn.mmdb"), "interval": 0.1}
    with node(library, data / "data", tokens={"keys": str(key_folder(data))}, geoip=files) as started:
        yield started


def status(connection: HTTPConnection, token: str, leaf: str = "main.mpd") -> int:
    connection.request("GET", f"/t/{token}/v/gated/{leaf}")
    answer = connection.getresponse()
    answer.read()
    return answer.status


def test_of_two_workers_one_takes_a_token_that_counts_once_and_so_it_stays(running: RunningNode) -> None:
    token, other = signed({308: 1}), signed({308: 1})
    with contextlib.ExitStack() as opened, ThreadPoolExecutor(8) as pool:
        several = [opened.enter_context(running.each_worker()) for _ in range(4)]
        found = pool.map(lambda connection: status(connection, token), [one for both in several for one in both])
        assert sorted(found) == [200] + [401] * 7
        assert [status(one, signed({308: 1}), "none.mpd") for one in several[0]] == [403, 403]
    running.kill()
    running.start()
    with running.each_worker() as both:
        assert [status(one, token) for one in both] == [401, 401], "what was used stays used"
        assert sorted(status(one, other) for one in both) == [200, 401]


def test_a_database_that_is_replaced_counts_in_every_worker_and_a_wrong_one_does_not(
    running: RunningNode, databases: Path
) -> None:
    german, ours = signed({316: ["DE-BE"]}), signed({311: [64500]})
    with running.each_worker() as both:
        assert [status(one, token) for one in both for token in (german, ours)] == [200] * 4
        write(databases / "city.mmdb", {HERE: place("FR")})
        until(lambda: [status(one, german) for one in both] == [403, 403], "another country")
        (databases / "city.mmdb").write_bytes(b"")
        until(lambda: sum("not taken" in event["event"] for event in running.events()) == 2, "a wrong database")
        assert [status(one, signed({316: ["FR"]})) for one in both] == [200, 200]
        write(databases / "city.mmdb", {HERE: place("DE", "BE")})
        until(lambda: [status(one, german) for one in both] == [200, 200], "the first country again")


def test_without_its_database_a_node_does_not_start(tmp_path: Path) -> None:
    assets(tmp_path)
    with (
        pytest.raises(AssertionError, match="missing.mmdb: No such file"),
        node(tmp_path, tmp_path / "data", geoip={"country": str(tmp_path / "missing.mmdb")}),
    ):
        pass
