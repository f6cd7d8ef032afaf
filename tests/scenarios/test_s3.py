"""A node in front of a real bucket: it is watched, changed, and watched again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamgate.storage.assets import discover, open_asset
from tests.edge.nodes import RunningNode, node, until
from tests.media_factory import Audio, Video, ladder, make
from tests.services.seaweed import SeaweedFS


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film with its moov last, and a ladder that needs a token."""
    root = tmp_path_factory.mktemp("media")
    make(root / "film.mp4", Video(size=(320, 180), gop=25, bitrate=600_000), Audio(), seconds=12, flags="")
    ladder(root / "gated", seconds=6, rungs=((160, 90, 60_000), (320, 180, 160_000)), title="A ladder", gop=25)
    described = root / "gated/asset.toml"
    described.write_text(f"gated = true\n{described.read_text()}")
    return root


def put(seaweed: SeaweedFS, bucket: str, folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            upload(seaweed, bucket, path, str(path.relative_to(folder)))


def upload(seaweed: SeaweedFS, bucket: str, path: Path, name: str) -> None:
    seaweed.client.put_object(Bucket=bucket, Key=f"films/{name}", Body=path.read_bytes())


@pytest.fixture
def site(seaweed: SeaweedFS, bucket: str, media: Path, tmp_path: Path) -> Iterator[RunningNode]:
    put(seaweed, bucket, media)
    settings = {
        "s3": {"endpoint": seaweed.endpoint, "region": seaweed.region},
        "origin": {"list_interval": 0.2, "revalidate": 0.2},
        "edge": {"disk_bytes": 2**28},
    }
    with node(f"s3://{bucket}/films", tmp_path / "data", environment=seaweed.environment, **settings) as running:
        yield running


def rendition(running: RunningNode, asset: str) -> str:
    found = re.search(r"v180-[0-9a-f]{16}", running.get(f"/v/{asset}/main.m3u8")[2].decode())
    assert found
    return found[0]


def test_a_film_in_a_bucket_is_served_and_replaced(
    site: RunningNode, seaweed: SeaweedFS, bucket: str, media: Path, tmp_path: Path
) -> None:
    expected = open_asset(next(ref for ref in discover(media) if ref.id == "film"))
    video = expected.presentation.video[0]
    name = rendition(site, "film")
    with site.each_worker() as workers:
        for n in range(video.segments):
            for worker in workers:
                worker.request("GET", f"/v/film/{name}/{n}.m4s")
                answer = worker.getresponse()
                assert (answer.status, answer.read()) == (200, video.segment(n).from_fd(expected.sources[0].fd))
    assert site.get("/v/gated/main.m3u8")[0] == 401
    most = 2 + video.segments
    assert 1 <= site.total("origin_reads_total") <= most, "two for its index, one a segment, whichever worker wants it"

    make(tmp_path / "new.mp4", Video(size=(320, 180), gop=25, bitrate=600_000), None, seconds=8)
    upload(seaweed, bucket, tmp_path / "new.mp4", "film.mp4")
    until(lambda: rendition(site, "film") != name, "the new film")
    replaced = open_asset(next(iter(discover(tmp_path / "new.mp4"))))
    body = site.get(f"/v/film/{rendition(site, 'film')}/1.m4s")[2]
    assert body == replaced.presentation.video[0].segment(1).from_fd(replaced.sources[0].fd)

    upload(seaweed, bucket, tmp_path / "new.mp4", "later.mp4")
    until(lambda: site.get("/v/later/main.m3u8")[0] == 200, "a new film")
    seaweed.client.delete_object(Bucket=bucket, Key="films/later.mp4")
    until(lambda: site.get("/v/later/main.m3u8")[0] in (401, 404), "its end")
