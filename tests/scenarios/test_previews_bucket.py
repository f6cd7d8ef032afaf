"""A gated film in a real bucket: all workers of a node give its preview to everybody, and the film to nobody."""

from __future__ import annotations

import http.client
import re
from pathlib import Path

import pytest

from tests.edge.nodes import RunningNode, node, until
from tests.media_factory import Audio, Video, make
from tests.services.seaweed import SeaweedFS

TOML = """
poster = "still.png"
[[source]]
file = "film.mp4"
[policy]
kind = "allow"
embed_origins = ["https://shop.example"]
"""


def ask(worker: http.client.HTTPConnection, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    worker.request(method, path, headers=headers)
    answer = worker.getresponse()
    return answer.status, answer.read()


def statuses(running: RunningNode, *paths: str) -> set[int]:
    """What each worker answers to who has no token."""
    with running.each_worker() as workers:
        return {ask(worker, path)[0] for worker in workers for path in paths}


@pytest.mark.slow
def test_a_preview_out_of_a_bucket(seaweed: SeaweedFS, bucket: str, tmp_path: Path) -> None:
    film = make(tmp_path / "film.mp4", Video(size=(64, 36), gop=25), Audio(), seconds=12)

    def put(name: str, body: bytes) -> None:
        seaweed.client.put_object(Bucket=bucket, Key=f"films/film/{name}", Body=body)

    put("film.mp4", film.read_bytes())
    put("still.png", b"a picture")
    put("asset.toml", f"{TOML}preview = 4\n".encode())
    settings = {
        "s3": {"endpoint": seaweed.endpoint, "region": seaweed.region},
        "origin": {"list_interval": 0.2, "revalidate": 0.2},
        "server": {"workers": 3},
        "auth": {"enabled": True},
    }
    root, data = f"s3://{bucket}/films", tmp_path / "data"
    with node(root, data, environment=seaweed.environment, **settings) as running:
        shown = "/v/film~preview"
        until(lambda: running.get(f"{shown}/main.m3u8")[0] == 200, "the preview")
        listed = running.get(f"{shown}/main.m3u8")[2].decode()
        [video] = set(re.findall(r"v36-[0-9a-f]{16}", listed))
        leaves = ("main.m3u8", "main.mpd", f"{video}/index.m3u8", f"{video}/init.mp4", f"{video}/0.m4s")
        assert statuses(running, *(f"{shown}/{leaf}" for leaf in leaves), "/v/film/poster.png") == {200}
        assert statuses(running, f"{shown}/{video}/1.m4s") == {404}
        assert statuses(running, *(f"/v/film/{leaf}" for leaf in leaves)) == {401}
        # Whose pages may ask for the film itself.
        until(lambda: (told := running.status()["auth"]) and told["state"] == "serving", "the auth role")
        with running.each_worker() as [worker, *_]:
            for origin, status in (("https://shop.example", 401), ("https://evil.example", 403)):
                assert ask(worker, "/api/v1/playback/film", "POST", Origin=origin)[0] == status
        # A purge of the film means the preview that every worker holds.
        before = running.total("purged_objects_total")
        assert running.admin("POST", "/purges", {"asset": "film"})[0] == 200
        assert running.total("purged_objects_total") > before
        assert statuses(running, f"{shown}/{video}/0.m4s") == {200}
        # Without a preview its address is as good as any.
        put("asset.toml", TOML.encode())
        paths = [f"{shown}/{leaf}" for leaf in leaves]
        until(lambda: statuses(running, *paths) == {401}, "the end of the preview")
