"""What answers tell caches: tags by which they can purge, and how long a manifest may be used when it is stale (RFC 5861)."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from edge import media, tags
from edge.routes import match
from streamgate.access import tokens
from streamgate.core.settings import EdgeSettings
from streamgate.errors import StreamGateError
from streamgate.native.cat import Verifier
from streamgate.storage import description
from streamgate.storage.discovery import Gates, discover
from tests.edge import gated
from tests.edge.harness import Folder, running, settings
from tests.media_factory import Audio, Video, make

V, A = "v540-0123456789abcdef", "aen-0123456789abcdef"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/v/film/main.mpd", ("asset:film", "kind:mpd")),
        (f"/v/film/{V}/3.m4s", ("asset:film", f"rendition:{V}", "kind:segment")),
        (f"/v/film/{V}+{A}/3.ts", ("asset:film", f"rendition:{V}", f"rendition:{A}", "kind:ts_segment")),
        (f"/v/film/none+{A}/index.m3u8", ("asset:film", f"rendition:{A}", "kind:ts_playlist")),
        ("/v/film/nothing", ("asset:film",)),
        ("/assets.json", ()),
    ],
)
def test_tags_that_follow_from_an_address(path: str, found: tuple[str, ...]) -> None:
    assert tags.of_path(path) == found
    assert all(tags.is_tag(tag) for tag in found)


def test_the_field_is_one_list() -> None:
    assert tags.field(match("/v/film/main.mpd"), ("b", "a")) == "asset:film,kind:mpd,b,a"


SOURCE = b'\n[[source]]\nfile = "a.mp4"\n'


def test_tags_of_a_description() -> None:
    assert description.parse(b'tags = ["season-1", "a.b_c", "season-1"]' + SOURCE).tags == ("season-1", "a.b_c")
    assert description.parse(SOURCE).tags == () == description.tags(SOURCE)


@pytest.mark.parametrize(
    "wrong", [b'tags = "a"', b"tags = [1]", b'tags = ["a:b"]', b'tags = [""]', b'tags = ["a,b"]', b'tags = ["-a"]', b'tags = ["\\u00e4"]',
              b'tags = ["' + b"x" * 65 + b'"]', b"tags = [" + b'"a",' * 17 + b"]"]
)  # fmt: skip
def test_tags_that_are_none(wrong: bytes) -> None:
    with pytest.raises(StreamGateError) as caught:
        description.parse(wrong + SOURCE)
    assert caught.value.code == "asset_description" and "tags" in caught.value.detail
    # Who may see the asset does not depend on them.
    assert description.tags(wrong + SOURCE) == () and not description.gated(wrong + SOURCE)


def test_a_listing_tells_tags_as_they_are_now(tmp_path: Path) -> None:
    (tmp_path / "film").mkdir()
    (tmp_path / "film/asset.toml").write_bytes(b'tags = ["one"]' + SOURCE)
    (tmp_path / "alone.mp4").touch()
    gates = Gates()
    assert {ref.id: ref.tags for ref in discover(tmp_path, gates)} == {"alone": (), "film": ("one",)}
    (tmp_path / "film/asset.toml").write_bytes(b'tags = ["two", "three"]' + SOURCE)
    assert {ref.id: ref.tags for ref in discover(tmp_path, gates)} == {"alone": (), "film": ("two", "three")}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "max-age=2, stale-if-error=86400"),
        ({"stale_if_error": 0}, "max-age=2"),
        ({"stale_while_revalidate": 10, "manifest_max_age": 5}, "max-age=5, stale-while-revalidate=10, stale-if-error=86400"),
        ({"stale_while_revalidate": 1, "stale_if_error": 2, "manifest_max_age": 0}, "max-age=0, stale-while-revalidate=1, stale-if-error=2"),
    ],
)  # fmt: skip
def test_how_long_a_manifest_may_be_used(given: dict[str, int], told: str) -> None:
    assert media.freshness(EdgeSettings(**given)) == told  # type: ignore[arg-type]


async def test_what_answers_tell(tmp_path: Path) -> None:
    """In memory and cut on the fly, natively and not; tags are off unless they are wanted."""
    folder = tmp_path / "film"
    folder.mkdir()
    await asyncio.to_thread(make, folder / "a.mp4", Video(size=(320, 180), gop=25), Audio(), seconds=9)
    (folder / "asset.toml").write_bytes(b'tags = ["season-1"]' + SOURCE)
    for wanted in (True, False):
        chosen = settings(cache_tags=wanted, stale_while_revalidate=7, memory_object=4096)
        async with running(Folder(tmp_path), chosen) as edge:
            main = await edge.ask("/v/film/main.m3u8")
            name = next(line for line in main.body.decode().splitlines() if line[0] == "v")
            paths = (
                "main.m3u8",
                "main.mpd",
                name,
                name.replace("index.m3u8", "init.mp4"),
                name.replace("index.m3u8", "0.m4s"),
            )
            for path in paths * 3:
                answer = await edge.ask(f"/v/film/{path}")
                target = match(f"/v/film/{path}")
                expected = tags.field(target, ("season-1",)) if wanted else None
                assert answer.headers.get("Cache-Tag") == expected, path
                stale = "stale-while-revalidate=7, stale-if-error=86400" in answer.headers["Cache-Control"]
                assert stale == (not target.route.immutable)
                again = await edge.ask(f"/v/film/{path}", {"If-None-Match": answer.headers["ETag"]})
                assert (again.status, again.headers.get("Cache-Tag")) == (304, expected)


async def test_only_who_may_see_it_hears_of_it(tmp_path: Path) -> None:
    root = await asyncio.to_thread(gated.assets, tmp_path)
    verifier = Verifier([gated.KEY.verifying()])
    async with running(Folder(root), settings(cache_tags=True, stale_while_revalidate=7), verifier=verifier) as edge:
        token = await asyncio.to_thread(minted)
        for _ in range(3):
            refused = await edge.ask("/v/gated/main.mpd")
            assert refused.status == 401 and "Cache-Tag" not in refused.headers
            seen = await edge.ask(f"/t/{token}/v/gated/main.mpd")
            assert seen.status == 200 and seen.headers["Cache-Tag"] == "asset:gated,kind:mpd"
            # Whether somebody may see it still is asked each time.
            assert seen.headers["Cache-Control"] == "private, max-age=2"


def minted() -> str:
    return tokens.mint(gated.KEY, asset="gated", session=os.urandom(16), expires=int(time.time()) + 600)
