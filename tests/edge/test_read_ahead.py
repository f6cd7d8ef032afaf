"""What a player will ask for next is on its way into the page cache when it has got what it asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from streamgate.media.presentation import Rendition
from streamgate.storage.assets import discover, open_asset
from streamgate.storage.objects.file import FileSource
from tests.edge.harness import Folder, running, settings
from tests.edge.nodes import RunningNode, node, until
from tests.faults.large_title import make_large
from tests.page_cache import evict, resident


@pytest.fixture(scope="module")
def title(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Segments of 25 MiB: more than kernels read ahead by themselves."""
    return make_large(tmp_path_factory.mktemp("large") / "large.mp4", 256 * 1024)


@pytest.fixture(scope="module")
def rendition(title: Path) -> Rendition:
    return open_asset(discover(title.parent)[0]).presentation.video[0]


@pytest.fixture(scope="module")
def started(title: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    with node(title.parent, tmp_path_factory.mktemp("node") / "data") as running:
        yield running


@pytest.mark.parametrize("number", [1, 3])
def test_the_next_segment_is_read_ahead(started: RunningNode, title: Path, rendition: Rendition, number: int) -> None:
    with started.each_worker() as connections:
        # What opening the title reads of it is in the past.
        for connection in connections:
            connection.request("GET", "/v/large/main.m3u8")
            assert connection.getresponse().read().startswith(b"#EXTM3U")
    evict(title)
    status, _, body = started.get(f"/v/large/{rendition.name}/{number}.m4s")
    assert (status, len(body)) == (200, rendition.segment(number).size)
    until(lambda: resident(title, *rendition.segment(number + 1).span) == 1, "the next segment in the page cache")


@pytest.mark.parametrize("disk_bytes", [0, 2**30])
async def test_when_and_which(
    title: Path, rendition: Rendition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk_bytes: int
) -> None:
    """Once the end of a segment was cut, by whomever, the whole of the next; behind the last one nothing."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(FileSource, "read_ahead", lambda _, offset, length: asked.append((offset, length)))
    spans = [rendition.segment(n).span for n in range(rendition.segments)]
    base = f"/v/large/{rendition.name}"
    chosen = settings(server={"data": str(tmp_path)}, disk_bytes=disk_bytes)
    async with running(Folder(title.parent), chosen) as edge:
        if not disk_bytes:
            assert (await edge.ask(f"{base}/0.m4s", {"Range": "bytes=0-999999"})).status == 206
            assert asked == []
        for n in range(rendition.segments):
            for _ in range(2):
                assert (await edge.ask(f"{base}/{n}.m4s")).status == 200
        assert (await edge.ask(f"{base}/k0.m4s")).status == 200
    times = 1 if disk_bytes else 2  # what is in the tier is not cut again
    assert asked == [span for span in spans[1:] for _ in range(times)]
