"""Previews: the beginning of a gated asset, or a trailer, for everybody, and nothing of what is behind it."""

from __future__ import annotations

import asyncio
import io
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import av
import pytest

from edge import entries, pages, titles
from edge import library as libraries
from edge.clearing import Clearing
from edge.following import path_of
from edge.library import BucketLibrary
from edge.purges import asked
from streamgate.access import tokens
from streamgate.access.embedding import allows
from streamgate.core.settings.origin import S3Settings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.media.presentation import Presentation
from streamgate.native.cat import Verifier
from streamgate.storage import description
from streamgate.storage.discovery import discover, with_previews
from streamgate.storage.kv.events import Event
from streamgate.storage.objects.folder import FolderStore
from tests.edge.gated import KEY
from tests.edge.harness import Answer, Edge, Folder, running, settings
from tests.media_factory import Audio, Video, ladder, make

POLICY = '\n[policy]\nkind = "allow"\n'
PICTURE = b"\xff\xd8 a picture" * 100
RUNGS = ((160, 90, 60_000), (320, 180, 160_000))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``film`` has 6 of its 10 s as its preview, ``short`` a trailer, ``none`` nothing; all are gated."""
    made = tmp_path_factory.mktemp("previews")
    film = ladder(made / "film", seconds=10, rungs=RUNGS, gop=25)
    with (film / "asset.toml").open("a") as file:
        file.write(f"{POLICY}preview = 6\n")
    about = 'tags = ["season-1"]\nposter = "still.JPEG"\n'
    (film / "asset.toml").write_text(about + (film / "asset.toml").read_text())
    (film / "still.JPEG").write_bytes(PICTURE)
    for name, more in (("short", '[preview]\nfile = "trailer.mp4"\n'), ("none", "")):
        (made / name).mkdir()
        make(made / name / "film.mp4", Video(size=(64, 36), gop=25), Audio(), seconds=9)
        (made / name / "asset.toml").write_text(f'gated = true\n{more}[[source]]\nfile = "film.mp4"\n')
    make(made / "short/trailer.mp4", Video(size=(96, 54), gop=25), Audio(), seconds=3)
    return made


@pytest.fixture(params=["folder", "store"])
async def edge(
    root: Path, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Edge]:
    verifier = Verifier([KEY.verifying()])
    if request.param == "folder":
        async with running(Folder(root), verifier=verifier) as started:
            yield started
        return

    async def opened(*_: object) -> FolderStore:
        return FolderStore(root, S3Settings())

    monkeypatch.setattr(libraries, "open_store", opened)
    chosen = settings({"data": str(tmp_path)})
    library = BucketLibrary("bucket", chosen, Telemetry())
    await library.start()
    async with running(library, chosen, verifier=verifier, remote=True) as started:
        yield started
    await library.stop()


async def presentation(edge: Edge, asset: str) -> Presentation:
    return (await edge.node.assets.open(asset)).asset.presentation


async def every(edge: Edge, asset: str) -> dict[str, bytes]:
    """All that the asset consists of, by path, fetched without a token."""
    made = await presentation(edge, asset)
    paths = paths_of(made, asset)
    answers = await asyncio.gather(*(edge.ask(path) for path in paths))
    assert {answer.status for answer in answers} == {200}
    assert all(answer.headers["Cache-Control"].startswith("public") for answer in answers)
    return {path: answer.body for path, answer in zip(paths, answers, strict=True)}


def paths_of(made: Presentation, asset: str) -> list[str]:
    """All paths of what there is below an asset."""
    paths = [path_of(target) for target in titles.objects(made, asset)]
    for pair in made.ts_variants:
        paths.append(f"/v/{asset}/{pair}/index.m3u8")
        paths += [f"/v/{asset}/{pair}/{n}.ts" for n in range(ts_segments(made, pair))]
    for video in made.video:
        paths += [f"/v/{asset}/{video.name}/k{n}.m4s" for n in range(video.keyframes)]
    return paths


def ts_segments(made: Presentation, pair: str) -> int:
    video, _, audio = pair.partition("+")
    muxer = made.ts_muxer(video, audio)
    return muxer.segments


def played(*parts: bytes) -> tuple[int, float]:
    """How many frames libav decodes, and when the last of them ends (s)."""
    with av.open(io.BytesIO(b"".join(parts)), "r") as container:
        frames = list(container.decode(container.streams[0]))
        last: Any = frames[-1]
    return len(frames), float((last.pts + last.duration) * last.time_base)


async def test_the_first_seconds_are_a_presentation_of_their_own(edge: Edge) -> None:
    whole, made = await presentation(edge, "film"), await presentation(edge, "film~preview")
    # 4 s segments: the last boundary at or before 6 s.
    assert float(made.duration) == pytest.approx(4, abs=0.05) and float(whole.duration) >= 10
    assert [r.segments for r in made.renditions.values()] == [1] * 6
    assert not made.renditions.keys() & whole.renditions.keys()
    bodies = await every(edge, "film~preview")
    for rendition in (*made.video, *made.audio):
        below = f"/v/film~preview/{rendition.name}"
        frames, end = played(bodies[f"{below}/init.mp4"], bodies[f"{below}/0.m4s"])
        assert end - float(made.zero) <= 4.05 and (rendition.kind == "audio" or frames == 100)
        playlist = bodies[f"{below}/index.m3u8"]
        assert playlist.count(b"#EXTINF") == 1 and b"#EXT-X-ENDLIST" in playlist
    mpd = bodies["/v/film~preview/main.mpd"].decode()
    [told] = re.findall(r'mediaPresentationDuration="PT([0-9.]+)S"', mpd)
    assert float(told) <= 4.05
    answer = await edge.ask("/v/film~preview/main.m3u8")
    assert answer.headers["ETag"] != (await edge.ask("/v/film/main.m3u8", token("film"))).headers["ETag"]
    assert made.video[0].name in answer.body.decode()


def token(asset: str) -> dict[str, str]:
    minted = tokens.mint(KEY, asset=asset, session=bytes(16), expires=int(time.time()) + 600)
    return {"CTA-Common-Access-Token": minted}


def anywhere() -> dict[str, str]:
    """A token without a path, as an issuer may choose."""
    signed = tokens.sign(KEY, {1: "streamgate", 3: "local", 4: int(time.time()) + 600, 7: bytes(16)})
    return {"CTA-Common-Access-Token": signed}


async def test_nothing_of_what_is_behind_the_end_is_given(edge: Edge) -> None:
    whole, made = await presentation(edge, "film"), await presentation(edge, "film~preview")
    bodies = await every(edge, "film~preview")
    for rendition, full in zip((*made.video, *made.audio), (*whole.video, *whole.audio), strict=True):
        # No table of samples knows of more than the beginning, so that no plan can.
        count = int(rendition.starts[-1])
        assert rendition.track.samples == count < full.track.samples
        assert rendition.track.ranges(0, count).tolist() == full.track.ranges(0, count).tolist()
        below = f"/v/film~preview/{rendition.name}"
        init = bodies[f"{below}/init.mp4"]
        assert not any(box in init for box in (b"mehd", b"sidx"))
        for table in (b"stts", b"stsc", b"stco"):
            assert int.from_bytes(init[(at := init.index(table)) + 8 : at + 12]) == 0  # entries
        assert b"sidx" not in init + bodies[f"{below}/0.m4s"]
        size = len(bodies[f"{below}/0.m4s"])
        beyond = await edge.ask(f"{below}/0.m4s", {"Range": f"bytes={size}-"})
        assert beyond.status == 416 and beyond.headers["Content-Range"] == f"bytes */{size}"
        clipped = await edge.ask(f"{below}/0.m4s", {"Range": f"bytes={size - 9}-{size + 10_000}"})
        assert clipped.status == 206 and clipped.body == bodies[f"{below}/0.m4s"][-9:]
        beyond_the_end = ["1.m4s", "4.m4s", "999999999.m4s"]
        if rendition.kind == "video":
            beyond_the_end += [f"k{rendition.keyframes}.m4s", f"k{full.keyframes - 1}.m4s"]
        for leaf in beyond_the_end:
            assert (await edge.ask(f"{below}/{leaf}")).code == "segment_not_found"
        # The whole film's renditions are none of the preview's.
        for leaf in ("index.m3u8", "init.mp4", "0.m4s", "4.m4s"):
            assert (await edge.ask(f"/v/film~preview/{full.name}/{leaf}")).code == "rendition_gone"
    for pair in made.ts_variants:
        assert (await edge.ask(f"/v/film~preview/{pair}/{ts_segments(made, pair)}.ts")).code == "segment_not_found"
    for pair in whole.ts_variants:
        assert (await edge.ask(f"/v/film~preview/{pair}/4.ts")).code == "rendition_gone"
    for text, read in zip(made.text, whole.text, strict=True):
        assert [cue.start for cue in text.cues] == [250, 1250, 2250, 3250] and len(read.cues) > 4
        later = [cue.text.encode() for cue in read.cues[4:]]
        shown = bodies[f"/v/film~preview/{text.name}/all.vtt"] + bodies[f"/v/film~preview/{text.name}/0.vtt"]
        assert b"00:03.250" in shown and not any(cue in shown for cue in later)
        assert (await edge.ask(f"/v/film~preview/{text.name}/1.vtt")).code == "segment_not_found"
        assert (await edge.ask(f"/v/film~preview/{read.name}/all.vtt")).code == "rendition_gone"


async def test_every_path_of_a_gated_asset_needs_a_token_but_those_of_its_preview(edge: Edge) -> None:
    made = await presentation(edge, "film")
    paths = paths_of(made, "film")
    assert {path.rpartition(".")[2] for path in paths} == {"m3u8", "mpd", "mp4", "m4s", "ts", "vtt"}
    refused = await asyncio.gather(*(edge.ask(path) for path in paths))
    assert {answer.code for answer in refused} == {"token_required"}
    # A token for the film opens it; for the preview nobody mints one.
    assert {(await edge.ask(path, token("film"))).status for path in paths[::5]} == {200}
    with pytest.raises(StreamGateError, match="asset_not_found"):
        token("film~preview")
    # What was asked for with the token does not come to who has none, nor from the preview's place.
    again = await asyncio.gather(*(edge.ask(path) for path in paths))
    assert {answer.code for answer in again} == {"token_required"}
    moved = await asyncio.gather(
        *(edge.ask(path.replace("/film/", "/film~preview/")) for path in paths if path.count("/") > 3)
    )
    assert {answer.code for answer in moved} == {"rendition_gone"}


async def test_the_poster_of_a_gated_asset_is_for_everybody(edge: Edge) -> None:
    await edge.node.gate.start()
    path = "/v/film/poster.jpg"
    for headers in ({}, token("film"), token("none"), {"CTA-Common-Access-Token": "nonsense"}):
        answer = await edge.ask(path, headers)
        assert (answer.status, answer.body, answer.headers["Content-Type"]) == (200, PICTURE, "image/jpeg")
        assert answer.headers["Cache-Control"].startswith("public, max-age=")
    assert (await edge.ask(path, {"If-None-Match": answer.headers["ETag"]})).status == 304
    part = await edge.ask(path, {"Range": "bytes=0-1"})
    assert (part.status, part.body) == (206, PICTURE[:2])
    # Nothing else is opened by it, and where there is none it is as everything of a gated asset.
    for other in ("/v/film/poster.png", "/v/film/poster.jpg/", "/v/none/poster.jpg", "/v/film~preview/poster.jpg"):
        answer = await edge.ask(other)
        assert answer.code == ("not_found" if "~" in other else "token_required")
    assert (await edge.ask("/v/film/../film/main.m3u8")).status == 400


async def test_a_poster_is_read_again_when_it_is_another(tmp_path: Path, root: Path) -> None:
    made = tmp_path / "film"
    made.mkdir()
    (made / "film.mp4").write_bytes((root / "none/film.mp4").read_bytes())
    (made / "asset.toml").write_text('gated = true\nposter = "p.webp"\n' + SOURCE)
    (made / "p.webp").write_bytes(b"one")
    async with running(Folder(tmp_path), settings(revalidate=0.0, list_gated=True)) as edge:
        await edge.node.gate.start()
        first = await edge.ask("/v/film/poster.webp")
        (made / "p.webp").write_bytes(b"another")
        second = await edge.ask("/v/film/poster.webp")
        assert (first.body, second.body, second.headers["Content-Type"]) == (b"one", b"another", "image/webp")
        assert first.headers["ETag"] != second.headers["ETag"]
        [listed] = (await edge.ask("/assets.json")).json()["assets"]
        assert listed["poster"] == "v/film/poster.webp" and listed["preview"] is None
        (made / "asset.toml").write_text("gated = true\n" + SOURCE)
        await edge.node.assets.look()
        assert (await edge.ask("/v/film/poster.webp")).code == "token_required"


async def test_a_trailer_is_another_file(edge: Edge) -> None:
    made = await presentation(edge, "short~preview")
    bodies = await every(edge, "short~preview")
    [video] = made.video
    below = f"/v/short~preview/{video.name}"
    frames, _ = played(bodies[f"{below}/init.mp4"], bodies[f"{below}/0.m4s"])
    assert (frames, video.width) == (75, 96) and float(made.duration) == pytest.approx(3, abs=0.1)
    assert (await edge.ask("/v/short/main.m3u8")).code == "token_required"


async def test_an_asset_without_a_preview_is_answered_like_one_that_there_is_not(edge: Edge) -> None:
    for leaf in ("main.m3u8", "main.mpd", "v36-0123456789abcdef/0.m4s"):
        answers = [await edge.ask(f"/v/{name}/{leaf}") for name in ("none~preview", "nobody~preview", "nobody")]
        known = [
            await edge.ask(f"/v/{name}/{leaf}", anywhere()) for name in ("none~preview", "nobody~preview", "nobody")
        ]
        assert len({(a.status, a.code, a.headers.get("Cache-Control")) for a in answers}) == 1
        assert {(a.status, a.code) for a in known} == {(404, "asset_not_found")}
    # Another mark, two of them, or another spelling is no address at all.
    for name in ("film~other", "film~preview~preview", "film~", "~preview", "film%7Epreview"):
        answer = await edge.ask(f"/v/{name}/main.m3u8")
        assert answer.status in (400, 401) and answer.status == (400 if "%" in name else 401)
    listed = {each["id"]: each for each in (await edge.ask("/assets.json")).json()["assets"]}
    assert not listed.keys() & {"film~preview", "film"}


async def test_purges_of_an_asset_mean_its_preview(edge: Edge) -> None:
    clearing = Clearing(edge.node)
    for number, what in enumerate(("asset=film", "tag=asset:film", "tag=season-1", "asset=film~preview"), 1):
        made = await presentation(edge, "film~preview")
        path = f"/v/film~preview/{made.video[0].name}/init.mp4"
        before = await edge.node.assets.open("film~preview")
        assert (await edge.ask(path)).status == 200 and edge.node.tiers.memory.get(path) is not None
        kind, _, subject = what.partition("=")
        event = Event(number, "purge", asked(json.dumps({kind: subject}), time.time()).encode(), None)
        await clearing.clear(clearing.mark([event]))
        assert edge.node.tiers.memory.get(path) is None, what
        assert (await edge.node.assets.open("film~preview")).generation > before.generation
        assert (await edge.ask(path)).status == 200


EMBEDS = '[policy]\nkind = "public"\nembed_origins = ["https://one.example", "https://*.many.example"]\npreview = 4\n'
SOURCE = '[[source]]\nfile = "film.mp4"\n'
CORS = "Access-Control-Allow-Origin"


def said(answer: Answer) -> tuple[str | None, bool, str]:
    """Who may read the answer, whether that depends on who asks, and who may use it unread."""
    varies = "Origin" in answer.headers.get("Vary", "").split(", ")
    return answer.headers.get(CORS), varies, answer.headers["Cross-Origin-Resource-Policy"]


async def test_pages_of_other_origins_than_those_listed_do_not_play_an_asset(root: Path, tmp_path: Path) -> None:
    for name in ("framed", "free"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "film.mp4").write_bytes((root / "none/film.mp4").read_bytes())
        (tmp_path / name / "asset.toml").write_text((EMBEDS if name == "framed" else "") + SOURCE)
    async with running(Folder(tmp_path), settings(revalidate=0.1)) as edge:
        for asset in ("framed", "framed~preview"):
            video = (await presentation(edge, asset)).video[0].name
            # Twice, as what is in memory has a way of its own; a problem is an answer, too.
            for leaf in ["main.m3u8", f"{video}/init.mp4", f"{video}/0.m4s", f"{video}/99.m4s", "no.thing"] * 2:
                path = f"/v/{asset}/{leaf}"
                for origin in ("https://one.example", "https://a.many.example", "https://b.a.many.example"):
                    answer = await edge.ask(path, {"Origin": origin})
                    assert said(answer) == (origin, True, "same-origin")
                    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
                for origin in ("https://two.example", "http://one.example", "https://one.example:444", "null",
                               "https://many.example", "https://notmany.example", "https://one.example.evil.example"):  # fmt: skip
                    assert said(await edge.ask(path, {"Origin": origin})) == (None, True, "same-origin")
                assert said(await edge.ask(path)) == (None, True, "same-origin")
        asking = {"Access-Control-Request-Method": "GET"}
        for origin, allowed in (("https://one.example", "https://one.example"), ("https://two.example", None)):
            answer = await edge.ask("/v/framed/main.m3u8", {"Origin": origin, **asking}, "OPTIONS")
            assert answer.status == 204 and answer.headers.get(CORS) == allowed
        # Another asset is read by all, until its list says otherwise: at once, though it is in memory.
        path = f"/v/free/{(await presentation(edge, 'free')).video[0].name}/init.mp4"
        for _ in range(2):
            assert said(await edge.ask(path, {"Origin": "https://two.example"})) == ("*", False, "cross-origin")
        (tmp_path / "free/asset.toml").write_text(EMBEDS + SOURCE)
        await edge.node.assets.look()
        for _ in range(2):
            assert said(await edge.ask(path, {"Origin": "https://two.example"})) == (None, True, "same-origin")
            assert said(await edge.ask(path)) == (None, True, "same-origin")


async def test_the_operators_origins_bound_those_of_an_asset(root: Path, tmp_path: Path) -> None:
    (tmp_path / "film").mkdir()
    (tmp_path / "film/film.mp4").write_bytes((root / "none/film.mp4").read_bytes())
    (tmp_path / "film/asset.toml").write_text(EMBEDS + SOURCE)
    chosen = settings(cors_origins=("https://one.example", "https://two.example"))
    async with running(Folder(tmp_path), chosen) as edge:
        for origin, allowed in (("one", True), ("two", False), ("a.many", False)):
            answer = await edge.ask("/v/film/main.mpd", {"Origin": f"https://{origin}.example"})
            assert (answer.headers.get(CORS) is not None) == allowed


async def test_the_page_of_an_asset_may_be_in_frames_of_its_origins(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "film").mkdir()
    (tmp_path / "film/film.mp4").write_bytes((root / "none/film.mp4").read_bytes())
    (tmp_path / "film/asset.toml").write_text(EMBEDS + SOURCE)
    policy = {"Content-Security-Policy": pages.POLICY}
    page = entries.text("<p>" * 2000, "text/html; charset=utf-8", "no-cache", headers=policy)
    monkeypatch.setattr(pages, "load", lambda: {"/": page})
    async with running(Folder(tmp_path)) as edge:
        await edge.node.assets.look()
        for _ in range(2):
            for path, ancestors in (
                ("/?asset=film", "'self' https://one.example https://*.many.example"),
                ("/", "'self'"),
                ("/?asset=other", "'self'"),
            ):
                for coding in ("br", "identity"):
                    answer = await edge.ask(path, {"Accept-Encoding": coding})
                    assert answer.headers["Content-Security-Policy"].endswith(f"frame-ancestors {ancestors}")


def test_which_origins_a_list_means() -> None:
    listed = ("https://One.example:8443", "https://*.many.example:444", "http://[::1]:80")
    for origin in ("https://one.example:8443", "https://a.many.example:444", "http://[::1]:80", None):
        assert allows(listed, origin)
    for origin in ("https://one.example", "https://a.many.example", "https://.many.example:444", "null", ""):
        assert not allows(listed, origin)
    assert allows((), "https://two.example") and allows(listed, "http://edge:80", own="http://edge:80")


@pytest.mark.parametrize(
    ("text", "preview", "gated"),
    [
        ('[policy]\nkind = "allow"\npreview = 30\n', True, True),
        ('[policy]\nkind = "public"\npreview = 0.5\n', True, False),
        ('gated = true\n[preview]\nfile = "trailer.mp4"\n', True, True),
        ('gated = true\n[policy]\nkind = "allow"\npreview = 30\n[preview]\nfile = "trailer.mp4"\n', False, True),
        ('[policy]\nkind = "allow"\npreview = 0\n', False, True),
        ('[policy]\nkind = "allow"\npreview = -1\n', False, True),
        ('[policy]\npreview = 30\n', False, True),
        ('gated = true\n[preview]\nfile = "../other/film.mp4"\n', False, True),
        ('gated = true\n[preview]\nseconds = 30\n', False, True),
        ('preview = 30\ngated = true\n', False, True),
        ('gated = true\nposter = "notes.txt"\n[preview]\nfile = "trailer.mp4"\n', False, True),
        ("gated = true\n", False, True),
        ("", False, False),
    ],
)  # fmt: skip
def test_what_makes_a_preview(text: str, preview: bool, gated: bool) -> None:
    data = (text + SOURCE).encode()
    told = description.facts(data)
    assert (told.preview, told.gated) == (preview, gated)
    try:
        description.parse(data).preview()
        found = True
    except StreamGateError as error:
        assert error.code in ("asset_description", "asset_not_found")
        found = False
    assert found == preview


def test_a_mistake_widens_nothing() -> None:
    listed = 'embed_origins = ["https://one.example"]\n'
    for wrong in (listed + "preview = -1\n", listed.replace("https:", "ftp:"), "embed_origins = 7\n"):
        told = description.facts(f'[policy]\nkind = "public"\n{wrong}{SOURCE}'.encode())
        assert told.gated and not told.preview and not allows(told.embed_origins, "https://one.example")
    for wrong in ("[preview]\nfile = 7\n", 'poster = "notes.txt"\n'):
        text = f'{wrong}[policy]\nkind = "public"\n{listed}{SOURCE}'
        assert description.facts(text.encode()).embed_origins == ("https://one.example",)


def test_no_asset_is_called_like_a_preview(tmp_path: Path) -> None:
    for name in ("film~preview", "film"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "asset.toml").write_text(POLICY + "preview = 4\n" + SOURCE)
    refs = with_previews(discover(tmp_path))
    assert [(ref.id, ref.gated) for ref in refs] == [
        ("film", True), ("film~preview", False), ("film-preview", True), ("film-preview~preview", False)
    ]  # fmt: skip
    assert {ref.id: ref.path.name for ref in refs}["film~preview"] == "film"
