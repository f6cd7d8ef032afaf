"""Every URL of an asset: the right bytes, type and cache rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamgate.media import dash, hls
from streamgate.media.presentation import Rendition
from streamgate.storage.assets import Asset, discover, open_asset
from tests.edge.harness import Edge

IMMUTABLE = "public, max-age=31536000, immutable"
FRESH = "public, max-age=2, stale-if-error=86400"
HLS = "application/vnd.apple.mpegurl"


@pytest.fixture(scope="session")
def assets(folder: Path) -> dict[str, Asset]:
    return {ref.id: open_asset(ref) for ref in discover(folder)}


async def test_manifests(edge: Edge, assets: dict[str, Asset]) -> None:
    for name, asset in assets.items():
        made = asset.presentation
        for leaf, text, media_type in (
            ("main.m3u8", hls.multivariant(made), HLS),
            ("main-ts.m3u8", hls.multivariant(made, ts=True), HLS),
            ("main.mpd", dash.mpd(made), "application/dash+xml"),
        ):
            answer = await edge.ask(f"/v/{name}/{leaf}")
            assert answer.status == 200
            assert answer.body.decode() == text
            assert answer.headers["Content-Type"] == media_type
            assert answer.headers["Cache-Control"] == FRESH


async def test_segments(edge: Edge, assets: dict[str, Asset]) -> None:
    for name, asset in assets.items():
        for rendition in (*asset.presentation.video, *asset.presentation.audio):
            base = f"/v/{name}/{rendition.name}"
            media_type = f"{rendition.kind}/mp4"
            fd = asset.sources[rendition.source].fd
            expected = {"init.mp4": rendition.init()}
            expected |= {f"{n}.m4s": rendition.segment(n).from_fd(fd) for n in range(rendition.segments)}
            if rendition.kind == "video":
                expected |= {f"k{n}.m4s": rendition.keyframe(n).from_fd(fd) for n in range(rendition.keyframes)}
            for leaf, body in expected.items():
                answer = await edge.ask(f"{base}/{leaf}")
                assert (answer.status, answer.body) == (200, body)
                assert answer.headers["Content-Type"] == media_type
                assert answer.headers["Cache-Control"] == IMMUTABLE
                assert answer.headers["ETag"] == f'"{rendition.name}/{leaf}"'
                assert answer.headers["Accept-Ranges"] == "bytes"
                assert "Vary" not in answer.headers


async def test_media_playlists(edge: Edge, assets: dict[str, Asset]) -> None:
    for name, asset in assets.items():
        made = asset.presentation
        texts = {f"{r.name}/index.m3u8": hls.media_playlist(made, r) for r in made.renditions.values()}
        texts |= {f"{r.name}/iframes.m3u8": hls.iframe_playlist(made, r) for r in made.video}
        texts |= {f"{pair}/index.m3u8": hls.ts_playlist(made, *halves) for pair, halves in made.ts_variants.items()}
        for path, text in texts.items():
            answer = await edge.ask(f"/v/{name}/{path}")
            assert (answer.status, answer.body.decode()) == (200, text)
            assert (answer.headers["Content-Type"], answer.headers["Cache-Control"]) == (HLS, IMMUTABLE)


async def test_ts_segments(edge: Edge, assets: dict[str, Asset]) -> None:
    for name, asset in assets.items():
        made = asset.presentation
        assert made.ts_variants
        for pair, (video, audio) in made.ts_variants.items():
            muxer = made.ts_muxer(video.name if video else None, audio.name if audio else None)
            for n in range(muxer.segments):
                answer = await edge.ask(f"/v/{name}/{pair}/{n}.ts")
                assert answer.status == 200
                assert answer.headers["Content-Type"] == "video/mp2t"
                assert len(answer.body) == muxer.sizes()[n]
                assert answer.body[::188] == b"\x47" * (len(answer.body) // 188)
                part = await edge.ask(f"/v/{name}/{pair}/{n}.ts", {"Range": "bytes=188-375"})
                assert (part.status, part.body) == (206, answer.body[188:376])
            assert (await edge.ask(f"/v/{name}/{pair}/{muxer.segments}.ts")).code == "segment_not_found"


async def test_subtitles(edge: Edge, assets: dict[str, Asset]) -> None:
    made = assets["ladder"].presentation
    assert made.text
    for text in made.text:
        expected = {f"{n}.vtt": text.segment(n) for n in range(text.segments)} | {"all.vtt": text.whole()}
        for leaf, body in expected.items():
            answer = await edge.ask(f"/v/ladder/{text.name}/{leaf}")
            assert (answer.status, answer.body) == (200, body)
            assert answer.headers["Content-Type"] == "text/vtt; charset=utf-8"
            assert answer.headers["Cache-Control"] == IMMUTABLE
        assert (await edge.ask(f"/v/ladder/{text.name}/{text.segments}.vtt")).code == "segment_not_found"


async def test_head_has_the_headers_of_get(edge: Edge, assets: dict[str, Asset]) -> None:
    made = assets["ladder"].presentation
    video, audio, text = made.video[0].name, made.audio[0].name, made.text[0].name
    pair = next(iter(made.ts_variants))
    paths = [
        "main.m3u8",
        "main-ts.m3u8",
        "main.mpd",
        f"{video}/index.m3u8",
        f"{video}/iframes.m3u8",
        f"{video}/init.mp4",
    ]
    paths += [f"{video}/0.m4s", f"{video}/k0.m4s", f"{audio}/0.m4s", f"{pair}/index.m3u8", f"{pair}/0.ts"]
    paths += [f"{text}/index.m3u8", f"{text}/0.vtt", f"{text}/all.vtt", "main.txt", f"{video}/9999.m4s"]
    changing = {"Age", "Cache-Status", "Date", "Server-Timing"}
    for path in paths:
        for headers in ({}, {"Accept-Encoding": "gzip, br"}):
            get = await edge.ask(f"/v/ladder/{path}", headers)
            head = await edge.ask(f"/v/ladder/{path}", headers, method="HEAD")
            assert head.status == get.status
            assert head.body == b""
            assert {k: v for k, v in head.headers.items() if k not in changing} == {
                k: v for k, v in get.headers.items() if k not in changing
            }
            assert int(get.headers["Content-Length"]) == len(get.body)


async def test_names_of_nothing(edge: Edge, assets: dict[str, Asset]) -> None:
    made = assets["ladder"].presentation
    video, audio, text = made.video[0], made.audio[0], made.text[0]
    old = "0123456789abcdef"
    for path, status, code in (
        ("/v/none/main.m3u8", 401, "token_required"),
        (f"/v/none/{video.name}/0.m4s", 401, "token_required"),
        (f"/v/ladder/v90-{old}/index.m3u8", 410, "rendition_gone"),
        (f"/v/ladder/v90-{old}/0.m4s", 410, "rendition_gone"),
        (f"/v/ladder/ten-{old}/all.vtt", 410, "rendition_gone"),
        (f"/v/ladder/v90-{old}+{audio.name}/0.ts", 410, "rendition_gone"),
        (f"/v/ladder/{video.name}+aeng-{old}/index.m3u8", 410, "rendition_gone"),
        (f"/v/ladder/{video.name}+none/0.ts", 404, "ts_unavailable"),
        ("/v/ladder/none+none/0.ts", 404, "ts_unavailable"),
        (f"/v/ladder/{video.name}/{video.segments}.m4s", 404, "segment_not_found"),
        (f"/v/ladder/{video.name}/k{video.keyframes}.m4s", 404, "segment_not_found"),
        (f"/v/ladder/{audio.name}/k0.m4s", 404, "not_found"),
        (f"/v/ladder/{audio.name}/iframes.m3u8", 404, "not_found"),
        (f"/v/ladder/{text.name}/init.mp4", 404, "not_found"),
        (f"/v/ladder/{text.name}/0.m4s", 404, "not_found"),
        (f"/v/ladder/{video.name}/all.vtt", 404, "not_found"),
        ("/v/ladder/other", 404, "not_found"),
        ("/v/ladder", 404, "not_found"),
        ("/v/", 401, "token_required"),
        ("/other", 404, "not_found"),
        ("/v/../etc/passwd", 400, "path_malformed"),
        ("/v/ladder/%2e%2e/main.m3u8", 400, "path_malformed"),
        ("/v//ladder/main.m3u8", 400, "path_malformed"),
        ("/v/ladder%2Fmain.m3u8", 400, "path_malformed"),
        ("/v/l%61dder/main.m3u8", 400, "path_malformed"),
    ):
        answer = await edge.ask(path)
        assert (answer.status, answer.code) == (status, code), path
        assert answer.headers["Cache-Control"] == "no-store"


async def test_query_is_no_part_of_the_name(edge: Edge, assets: dict[str, Asset]) -> None:
    name = assets["film"].presentation.video[0].name
    plain = await edge.ask(f"/v/film/{name}/init.mp4")
    looked_up = edge.node.telemetry.value("cache_lookups", result="hit")
    cmcd = await edge.ask(f"/v/film/{name}/init.mp4?CMCD=bl%3D21300%2Csid%3D%226e2fb550%22")
    assert (cmcd.status, cmcd.body, cmcd.headers["ETag"]) == (200, plain.body, plain.headers["ETag"])
    assert edge.node.telemetry.value("cache_lookups", result="hit") == looked_up + 1


async def test_manifests_and_inits_come_from_memory(edge: Edge, assets: dict[str, Asset]) -> None:
    rendition = assets["film"].presentation.video[0]
    assert isinstance(rendition, Rendition)
    paths = ["main.m3u8", "main.mpd", f"{rendition.name}/index.m3u8", f"{rendition.name}/init.mp4"]
    first = [await edge.ask(f"/v/film/{path}") for path in paths]
    misses = edge.node.telemetry.value("cache_lookups", result="miss")
    second = [await edge.ask(f"/v/film/{path}") for path in paths]
    assert [a.body for a in first] == [a.body for a in second]
    assert edge.node.telemetry.value("cache_lookups", result="miss") == misses
