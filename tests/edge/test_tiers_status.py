"""Every answer says which tier had it (RFC 9211), and how old it is if one did."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.edge.harness import Edge, Folder, running, settings

MEMORY, DISK = "streamgate;hit;detail=memory", "streamgate;hit;detail=disk"
MISS, STORED, BYPASS = "streamgate;fwd=uri-miss", "streamgate;fwd=uri-miss;stored", "streamgate;fwd=bypass"


async def told(
    edge: Edge, path: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> tuple[int, str, bool]:
    """Status, Cache-Status, and whether there is an Age that can be true."""
    answer = await edge.ask(path, headers, method)
    age = answer.headers.get("Age")
    assert age is None or 0 <= int(age) < 60
    return answer.status, answer.headers["Cache-Status"], age is not None


async def video(edge: Edge) -> str:
    name = (await edge.node.assets.open("film")).asset.presentation.video[0].name
    return f"/v/film/{name}"


async def test_texts_come_from_memory(edge: Edge) -> None:
    base = await video(edge)
    for path in ("/v/film/main.m3u8", "/v/film/main.mpd", f"{base}/index.m3u8", f"{base}/init.mp4"):
        assert await told(edge, path) == (200, STORED, False), path
        for headers in ({}, {"Accept-Encoding": "br"}, {"Range": "bytes=0-9"}):
            status = 206 if "Range" in headers else 200
            assert await told(edge, path, headers) == (status, MEMORY, True), path
        tag = (await edge.ask(path)).headers["ETag"]
        assert await told(edge, path, {"If-None-Match": tag}) == (304, MEMORY, True)
        assert await told(edge, path, method="HEAD") == (200, MEMORY, True)
        assert (await told(edge, path, {"Range": "bytes=99999999-"}))[:2] == (416, MEMORY)


@pytest.mark.parametrize("kept", [0, 2**20])
async def test_segments_come_from_the_disk_and_then_from_where_they_are_kept(
    folder: Path, tmp_path: Path, kept: int
) -> None:
    chosen = settings({"data": str(tmp_path)}, disk_bytes=2**30, memory_object=kept)
    async with running(Folder(folder), chosen) as edge:
        path = f"{await video(edge)}/0.m4s"
        whole = await edge.ask(path)
        assert (whole.status, whole.headers["Cache-Status"]) == (200, STORED)
        assert await told(edge, path, {"Range": "bytes=-5"}) == (206, DISK, True)
        for headers, status in (({}, 200), ({"Range": "bytes=5-9"}, 206), ({"If-None-Match": "*"}, 304)):
            assert await told(edge, path, headers) == (status, MEMORY if kept else DISK, True)
        part = await edge.ask(path, {"Range": "bytes=5-9"})
        again = await edge.ask(path)
        assert again.body == whole.body and part.body == whole.body[5:10]
        same = ("ETag", "Content-Type", "Cache-Control", "Accept-Ranges", "Content-Length", "Server")
        assert [again.headers[name] for name in same] == [whole.headers[name] for name in same]


async def test_what_no_tier_is_asked_for(edge: Edge) -> None:
    for path, method in (("/version", "GET"), ("/metrics", "GET"), ("/none", "GET"), ("/v/film/main.m3u8", "OPTIONS")):
        assert (await told(edge, path, method=method))[1:] == (BYPASS, False), path
    assert (await told(edge, "/v/none/main.m3u8"))[1:] == (BYPASS, False), "who may not know hears nothing"
    assert await told(edge, f"{await video(edge)}/9999.m4s") == (404, MISS, False)
