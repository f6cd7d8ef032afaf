"""What players report is logged for analytics, whichever path answers, and nothing in it can fail a request."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import ValidationError

from edge.access_log import File
from edge.cmcd_log import rendered
from edge.entries import IMMUTABLE, Entry
from edge.tiers.tier import Terms
from streamgate.access import tokens
from streamgate.core.settings import LogSettings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.native.cat import Verifier
from streamgate.native.cmcd import CmcdLog
from tests.edge import gated
from tests.edge.harness import Edge, Folder, running, settings
from tests.edge.nodes import node, until

WAIT_S = 10.0
TOLD = 'br=3200,bs,ot=v,sid="6e2fb550-c457-11e9-bb97-0800200c9a66",sf=h'
KEYS = {"br": 3200, "bs": True, "ot": "v", "sid": "6e2fb550-c457-11e9-bb97-0800200c9a66", "sf": "h"}
QUERY = f"?CMCD={quote(TOLD)}"


@asynccontextmanager
async def logging(root: Path, file: Path, verifier: Verifier | None = None, **log: Any) -> AsyncIterator[Edge]:
    """An edge that logs what players report; nothing of a film is on a disk."""
    given = LogSettings(access=False, level="error", cmcd_file=str(file), **log)
    chosen = settings(memory_object=2**24, cache_bytes=2**28).model_copy(update={"log": given})
    async with running(Folder(root), chosen, verifier=verifier) as edge:
        yield edge


async def lines(edge: Edge, file: Path, wanted: int) -> list[dict[str, Any]]:
    """The lines, when there are so many."""
    assert edge.node.reports is not None
    edge.node.reports.flush()
    end = asyncio.get_running_loop().time() + WAIT_S
    while True:
        found = (await asyncio.to_thread(file.read_text)).splitlines()
        if len(found) >= wanted:
            assert len(found) == wanted
            return [json.loads(line) for line in found]
        assert asyncio.get_running_loop().time() < end, f"{len(found)} lines of {wanted}"
        await asyncio.sleep(0.01)


async def video(edge: Edge, asset: str = "film") -> str:
    return (await edge.node.assets.open(asset)).asset.presentation.video[0].name


async def natively(edge: Edge) -> int:
    told = (await edge.ask("/metrics")).body.decode()
    return int(float(next(x for x in told.splitlines() if x.startswith("streamgate_native_answers_total")).split()[-1]))


async def test_both_paths_log_what_is_reported(folder: Path, tmp_path: Path) -> None:
    """By the query and by fields, of versions 1 and 2; what reports nothing has no line."""
    async with logging(folder, tmp_path / "cmcd.log") as edge:
        name = await video(edge)
        path = f"/v/film/{name}/0.m4s"
        size = len((await edge.ask(path + QUERY)).body)
        before = await natively(edge)
        fields = {
            "CMCD-Object": "br=(3200;v),ot=v",
            "CMCD-Session": "v=2,sf=d",
            "CMCD-Status": "bs",
            "CMCD-Request": "su",
        }
        assert (await edge.ask(path + QUERY)).status == 200
        assert (await edge.ask(path, {**fields, "Range": "bytes=0-9"})).status == 206
        assert (await edge.ask(path, {"CMCD-Object": ""})).status == 200
        assert await natively(edge) == before + 3
        assert (await edge.ask(f"/v/film/main.mpd?a=b&CMCD={quote('ot=m')}", fields)).status == 200
        assert (await edge.ask(f"/v/film/{name}/99.m4s", fields)).status == 404
        await edge.ask(f"/assets.json{QUERY}")
        one, two, three, four, five = await lines(edge, tmp_path / "cmcd.log", 5)
        assert 0 <= one.pop("seconds") < 10 and abs(len(one.pop("timestamp")) - 24) == 0
        of = {"asset": "film", "rendition": name, "object": "0.m4s"}
        assert one == {**of, "status": 200, "bytes": size, "version": 1, "cmcd": KEYS}
        assert {key: two[key] for key in ("tier", "status", "bytes", "cmcd")} == {
            "tier": "memory", "status": 200, "bytes": size, "cmcd": KEYS,
        }  # fmt: skip
        assert (three["status"], three["bytes"], three["tier"], three["version"]) == (206, 10, "memory", 2)
        assert three["cmcd"] == {"v": 2, "sf": "d", "br": [{"v": 3200}], "ot": "v", "bs": True, "su": True}
        assert (four["object"], four["cmcd"]["ot"]) == ("main.mpd", "v") and "rendition" not in four
        assert (five["status"], five["object"], five["cmcd"]) == (404, "99.m4s", three["cmcd"])
        telemetry = edge.node.telemetry
        assert telemetry.value("cmcd_keys", result="kept") == 10 + 3 * 6
        assert "cmcd" not in (await edge.ask("/health/live")).body.decode()


async def test_the_tier_and_the_disk(folder: Path, tmp_path: Path) -> None:
    given = LogSettings(access=False, level="error", cmcd_file=str(tmp_path / "cmcd.log"))
    chosen = settings({"data": str(tmp_path / "data")}, disk_bytes=2**30, memory_object=0)
    async with running(Folder(folder), chosen.model_copy(update={"log": given})) as edge:
        path = f"/v/film/{await video(edge)}/0.m4s{QUERY}"
        for _ in range(3):
            await edge.ask(path)
        found = await lines(edge, tmp_path / "cmcd.log", 3)
        assert [line.get("tier") for line in found] == [None, "disk", "disk"]
        assert len({line["bytes"] for line in found}) == 1


async def test_the_session_and_no_token(tmp_path: Path) -> None:
    """A line has the beginning of the token's session, on both paths, and of nothing else what is as long as a token."""
    root = tmp_path / "root"
    root.mkdir()
    await asyncio.to_thread(gated.assets, root)
    session = bytes(range(0xA0, 0xB0))
    token = tokens.mint(gated.KEY, asset="gated", session=session, expires=int(time.time()) + 1000)
    async with logging(root, tmp_path / "cmcd.log", Verifier([gated.KEY.verifying()])) as edge:
        path = f"/v/gated/{await video(edge, 'gated')}/init.mp4"
        told = {"CMCD-Request": f'br=1,nor="/t/{token}{path}",com.example-a="{token[:200]}"'}
        for _ in range(2):
            assert (await edge.ask(f"/t/{token}{path}", told)).status == 200
            assert (await edge.ask(path, {**told, "CTA-Common-Access-Token": token})).status == 200
        assert (await edge.ask(path, told)).status == 401
        found = await lines(edge, tmp_path / "cmcd.log", 5)
    assert [line.get("session") for line in found] == ["a0a1a2a3"] * 4 + [None]
    text = (tmp_path / "cmcd.log").read_text()
    assert not any(token[at : at + 40] in text for at in range(0, len(token) - 40, 20))
    assert found[0]["cmcd"] == {"br": 1, "nor": f"/t/…{path}", "com.example-a": "…"}


@pytest.mark.parametrize(
    "told", ['br="', "=,=,=", "br=%00", "%ff%fe", "v=99,br=(", '"' * 4000, "br=1," * 800 + "d=x", "sid=%22%0d%0a%22"]
)
async def test_nothing_in_it_fails_a_request(folder: Path, tmp_path: Path, told: str) -> None:
    async with logging(folder, tmp_path / "cmcd.log") as edge:
        path = f"/v/film/{await video(edge)}/init.mp4"
        for _ in range(2):
            assert (await edge.ask(f"{path}?CMCD={told}")).status == 200
        assert (await edge.ask(path, {"CMCD-Object": told.encode().decode("latin-1")})).status == 200
        for line in await lines(edge, tmp_path / "cmcd.log", 3):
            assert line["asset"] == "film"


async def test_a_slow_client_is_logged_with_what_it_said_first(folder: Path, tmp_path: Path) -> None:
    """What it said is kept until its answer has left, though other requests come over the same connection."""
    async with logging(folder, tmp_path / "cmcd.log") as edge:
        path = f"/v/film/{await video(edge)}/0.m4s"
        big = Entry("video/mp4", "big", IMMUTABLE, bytes(8 * 2**20))
        assert edge.node.tiers.memory.put(path, big, Terms("public", "segment"))
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, ("127.0.0.1", edge.port))
        for told, close in (("br=1,ot=v", ""), ('cid="another",br=2,ot=a', "Connection: close\r\n")):
            request = f"GET {path}?x=y&CMCD={quote(told)} HTTP/1.1\r\nHost: a\r\nCMCD-Status: bs\r\n{close}\r\n"
            await loop.sock_sendall(connection, request.encode())
            await asyncio.sleep(0)
        got = 0
        while piece := await loop.sock_recv(connection, 2**20):
            got += len(piece)
        connection.close()
        assert got > 2 * big.size
        found = await lines(edge, tmp_path / "cmcd.log", 2)
        assert [line["cmcd"] for line in found] == [
            {"br": 1, "ot": "v", "bs": True},
            {"cid": "another", "br": 2, "ot": "a", "bs": True},
        ]
        assert [line["bytes"] for line in found] == [big.size] * 2


async def test_a_part_is_kept(folder: Path, tmp_path: Path) -> None:
    async with logging(folder, tmp_path / "cmcd.log", cmcd_sample=0.5) as edge:
        path = f"/v/film/{await video(edge)}/init.mp4{QUERY}"
        for _ in range(20):
            await edge.ask(path)
        assert len(await lines(edge, tmp_path / "cmcd.log", 10)) == 10
    with pytest.raises(ValidationError):
        LogSettings(cmcd_sample=2)


def test_two_workers_and_a_file_that_is_rotated(folder: Path, tmp_path: Path) -> None:
    file, old = tmp_path / "cmcd.log", tmp_path / "cmcd.log.1"
    with node(folder, tmp_path / "data", log={"cmcd_file": str(file)}) as started, started.each_worker() as workers:

        def ask(told: str) -> None:
            for worker in workers:
                worker.request("GET", "/v/film/main.mpd", headers={"CMCD-Request": told})
                assert worker.getresponse().read()

        def rows(log: Path) -> list[dict[str, Any]]:
            return [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]

        ask("bl=1")
        until(lambda: len(rows(file)) == 2, "a line of each")
        os.rename(file, old)
        started.process.send_signal(signal.SIGUSR1)

        def reopened() -> bool:
            ask("bl=2")
            return file.exists() and len(rows(file)) > 2

        until(reopened, "lines in a new file")
        assert {row["cmcd"]["bl"] for row in rows(file)} == {2}
        assert {row["object"] for row in rows(file)} == {"main.mpd"}
        assert started.stop() == 0


def test_what_nobody_takes_is_dropped_and_counted(tmp_path: Path) -> None:
    telemetry, release, entered = Telemetry(), threading.Event(), threading.Event()

    def render(block: bytes) -> bytes:
        entered.set()
        assert release.wait(WAIT_S)
        return rendered(block, telemetry)

    file = File(str(tmp_path / "cmcd.log"), telemetry, name="cmcd", render=render)
    log = CmcdLog(file.write)

    def add(number: int) -> None:
        for _ in range(number):
            log.add(path=b"/v/a/main.mpd", status=200, sent=1, duration=1, query=b"CMCD=br%3D1,zz%3D2,d%3Dx")
            log.flush()

    add(1)
    assert entered.wait(WAIT_S)
    add(300)
    dropped = telemetry.value("log_lines_dropped")
    assert 0 < dropped < 300
    release.set()
    file.close()
    written = (tmp_path / "cmcd.log").read_text().splitlines()
    assert len(written) == 301 - dropped
    line = json.loads(written[-1])
    assert (line["unknown"], line["invalid"], line["cmcd"]) == (1, 1, {"br": 1})
    for result in ("kept", "unknown", "invalid"):
        assert telemetry.value("cmcd_keys", result=result) == len(written)


def test_a_file_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(StreamGateError, match=r"log\.cmcd_file"):
        File(str(tmp_path / "no" / "cmcd.log"), Telemetry(), name="cmcd")
