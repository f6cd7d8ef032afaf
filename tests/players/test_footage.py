"""Every codec that a browser plays, a source that is converted first, and real footage, in players."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from playwright.async_api import Browser

from tests.oracles import footage
from tests.players.abilities import BROWSER, Client
from tests.players.conftest import Opener
from tests.players.serving import serving
from tests.players.test_browser import ENDED
from tests.players.test_programs import FFMPEG_SAYS, probe, run

pytestmark = [pytest.mark.slow, pytest.mark.players]
in_chromium = pytest.mark.needs("chromium", "web")
of_the_session = pytest.mark.asyncio(loop_scope="session")  # as Chromium and its pages are

MADE = ("av1.mp4", "vp9.mp4", "opus.mp4", "flac.mp4", "matroska.mkv", "webm.webm")
MADE_FRAMES = 6 * 25
REAL = footage.real(".mp4", ".mkv", ".webm", ".ts", ".mov")
# Debian's Chromium has no HEVC, and no browser has H.264's 4:4:4: the server finds that file's video unplayable.
IN_A_BROWSER = [name for name in REAL if not re.search("hevc|444", name)]
RUNGS = [name for name in REAL if re.fullmatch(r"bbb-\d+k\.mp4", name)]
LADDERS = [RUNGS] if len(RUNGS) == 3 else []
PLAYED_S = 3
PREPARED_S = 60

both = pytest.mark.parametrize(
    "client", [client for client in BROWSER if client.name in ("hls.js", "dash.js")], ids=lambda client: client.name
)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated files, the real ones, and the real ladder's asset."""
    folder = tmp_path_factory.mktemp("films")
    for name in MADE:
        footage.obtain(name, folder)
    for name in REAL:
        shutil.copyfile(Path(os.environ["STREAMGATE_MEDIA"]) / name, folder / name)
    for rungs in LADDERS:
        (folder / "ladder").mkdir()
        for name in rungs:
            os.link(folder / name, folder / "ladder" / name)
        (folder / "ladder" / "asset.toml").write_text("".join(f'[[source]]\nfile = "{name}"\n\n' for name in rungs))
    return folder


@pytest.fixture(scope="module")
def films_origin(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The origin of a server of ``films``, whose converted containers go to a folder of its own."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        with serving(films) as url:
            yield url


@pytest.fixture
def open_film(chromium: Browser, pages: str, films_origin: str) -> Opener:
    return Opener(chromium, pages, films_origin)


def prepared(origin: str, name: str) -> str:
    """The asset of the file ``name``, once its container is converted: the server says when to ask again."""
    asset = Path(name).stem
    deadline = time.monotonic() + PREPARED_S
    while True:
        try:
            with urlopen(f"{origin}/v/{quote(asset)}/main.m3u8", timeout=PREPARED_S):
                return asset
        except HTTPError as e:
            told = json.loads(e.read())
            assert (e.code, told["code"]) == (HTTPStatus.SERVICE_UNAVAILABLE, "asset_preparing"), told
            assert time.monotonic() < deadline, told
            time.sleep(int(e.headers["Retry-After"]))


@in_chromium
@of_the_session
@pytest.mark.parametrize("name", MADE)
@both
async def test_every_codec_plays_to_the_end(client: Client, name: str, open_film: Opener) -> None:
    async with open_film(client, prepared(open_film.origin, name)) as player:
        await player.until("p => p.video.readyState >= 3")
        await player.run("p => p.play()")
        await player.until(ENDED, deadline=20)
        frames = await player.run("p => p.frames()")
        assert frames["corrupted"] == 0
        assert 0 <= frames["total"] - MADE_FRAMES <= client.again
        await player.assert_clean()


@in_chromium
@of_the_session
@pytest.mark.parametrize("name", IN_A_BROWSER)
@both
async def test_real_footage_plays(client: Client, name: str, open_film: Opener) -> None:
    async with open_film(client, prepared(open_film.origin, name)) as player:
        await player.until("p => p.video.readyState >= 3")
        await player.run("p => p.play()")
        await player.until("(p, s) => p.video.currentTime > s && p.frames().total > s * 20", PLAYED_S)
        assert (await player.run("p => p.frames()"))["corrupted"] == 0
        await player.assert_clean()


@in_chromium
@of_the_session
@pytest.mark.parametrize("rungs", LADDERS, ids=["bbb"] * len(LADDERS))
@both
async def test_a_real_ladder_switches(client: Client, rungs: list[str], open_film: Opener) -> None:
    async with open_film(client, "ladder", small_buffer=True) as player:
        await player.until("p => p.video.readyState >= 3")
        heights = await player.run("p => p.rungs()")
        assert len(heights) == len(rungs) and heights == sorted(set(heights))
        # The three files hold the same sound: it is there once.
        assert len(await player.run("p => p.adapter.audios()")) == 1
        await player.run("p => p.play()")
        for rung in (0, 2, 1):
            await player.run("(p, n) => p.setRung(n)", rung)
            await player.until("(p, h) => p.video.videoHeight === h", heights[rung])
        at = await player.run("p => p.video.currentTime")
        await player.until("(p, t) => p.video.currentTime > t + 1", at)
        await player.assert_clean()


@pytest.mark.needs("ffmpeg", "ffprobe")
@pytest.mark.parametrize("name", REAL)
def test_ffmpeg_reads_real_footage(name: str, films: Path, films_origin: str) -> None:
    url = f"{films_origin}/v/{quote(prepared(films_origin, name))}/main.m3u8"
    done = run("ffprobe", "-v", "warning", "-count_frames", "-show_streams", "-of", "json", url)
    told = [line for line in done.stderr.decode().splitlines() if not any(re.search(p, line) for p in FFMPEG_SAYS)]
    assert told == []
    streams = [stream for stream in json.loads(done.stdout)["streams"] if stream["codec_type"] == "video"]
    counted = [(stream["height"], stream["nb_read_frames"]) for stream in streams]
    source = [(s["height"], s["nb_read_frames"]) for s in probe(str(films / name), "-select_streams", "v")]
    # A rung that no browser plays, or that does not go with the others, is left out, and a finding says so.
    assert set(counted) <= set(source)
    assert counted or "444" in name
