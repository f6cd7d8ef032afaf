"""A gated asset plays with a token in the path in every player, and with a header or a cookie in hls.js; without one it does not."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from playwright.async_api import Browser, BrowserContext

from streamgate.access import tokens
from streamgate.core.settings import ServerSettings, Settings
from streamgate.storage import keys
from tests.conftest import find_program
from tests.players import browser as browsing
from tests.players.abilities import BROWSER, Client
from tests.players.browser import Watched
from tests.players.conftest import FPS, SECONDS
from tests.players.serving import serving

NAME = "CTA-Common-Access-Token"
in_browser = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.players,
    pytest.mark.needs("chromium", "web"),
]
HLS_JS = BROWSER[0]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def gated(library: Path, pages: str, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The origin of a server of two workers with one gated asset, ``film``, whose answers the pages may read with credentials."""
    root = tmp_path_factory.mktemp("gated")
    shutil.copytree(library / "single", root / "film")
    described = root / "film/asset.toml"
    described.write_text("gated = true\n" + described.read_text())
    settings = {
        "STREAMGATE__SERVER__DATA": str(data),
        "STREAMGATE__SERVER__WORKERS": "2",
        "STREAMGATE__TOKENS__WITHOUT_SESSION": "true",
        "STREAMGATE__AUTH__ENABLED": "false",
        "STREAMGATE__EDGE__CORS_ORIGINS": json.dumps([pages]),
    }
    with serving(root, settings) as url:
        yield url


@pytest.fixture
def token(gated: str, data: Path) -> str:
    """A fresh one, made with the key that the server has made."""
    settings = Settings(server=ServerSettings(data=str(data)))
    key = keys.signer(settings, keys.configured(settings))
    return tokens.mint(key, asset="film", session=bytes(range(16)), expires=int(time.time()) + 300)


async def plays(player: Watched) -> None:
    await player.run("p => p.play()")
    await player.until("p => p.video.currentTime > 1 && p.frameNumber() > 20")
    await player.assert_clean()


@pytest.mark.parametrize(
    "client",
    [pytest.param(c, marks=in_browser if c is HLS_JS else [*in_browser, pytest.mark.slow], id=c.name) for c in BROWSER],
)
async def test_the_path_is_inherited(client: Client, chromium: Browser, pages: str, gated: str, token: str) -> None:
    url = f"{gated}/t/{token}/v/film/{client.manifest}"
    async with browsing.player(chromium, pages, client.engine, url) as player:
        await plays(player)
        asked = [request for request in player.requests if request.startswith(gated)]
        assert len(asked) > 3 and all(f"/t/{token}/v/film/" in request for request in asked)


class TestHlsJs:
    pytestmark = [*in_browser, pytest.mark.slow]

    async def play(self, chromium: Browser, pages: str, gated: str, setup: str, token: str, cookie: bool) -> None:
        async def prepare(context: BrowserContext) -> None:
            # As a page does it that makes hls.js by itself: new Hls({ xhrSetup }).
            script = "let Hls; Object.defineProperty(window, 'Hls', { get: () => Hls, set(made) { Hls = made; "
            await context.add_init_script(f"{script} made.DefaultConfig.xhrSetup = {setup}; }} }});")
            if cookie:
                given = {"name": NAME, "value": token, "domain": "127.0.0.1", "path": "/v/film/", "httpOnly": True}
                await context.add_cookies([given])  # type: ignore[list-item]

        url = f"{gated}/v/film/main.m3u8"
        async with browsing.player(chromium, pages, "hls", url, prepare=prepare) as player:
            await plays(player)
            assert all(token not in request for request in player.requests)

    async def test_with_a_header(self, chromium: Browser, pages: str, gated: str, token: str) -> None:
        setup = f"xhr => xhr.setRequestHeader('{NAME}', '{token}')"
        await self.play(chromium, pages, gated, setup, token, cookie=False)

    async def test_with_a_cookie(self, chromium: Browser, pages: str, gated: str, token: str) -> None:
        await self.play(chromium, pages, gated, "xhr => { xhr.withCredentials = true; }", token, cookie=True)


@pytest.mark.slow
@pytest.mark.players
@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize(
    ("carried", "manifest"),
    # No query for main.mpd: ffmpeg 5.1 resolves an MPD's URLs against the address before the redirect.
    [
        ("path", "main.m3u8"),
        ("path", "main-ts.m3u8"),
        ("path", "main.mpd"),
        ("query", "main.m3u8"),
        ("query", "main-ts.m3u8"),
    ],
)
def test_ffmpeg_plays_every_frame(gated: str, token: str, carried: str, manifest: str) -> None:
    ffprobe = find_program("ffprobe")
    assert ffprobe
    url = f"{gated}/t/{token}/v/film/{manifest}" if carried == "path" else f"{gated}/v/film/{manifest}?{NAME}={token}"
    options = ["-v", "error", "-count_frames", "-select_streams", "v:0", "-show_streams", "-of", "json"]
    done = subprocess.run([ffprobe, *options, url], capture_output=True, timeout=60, check=True)
    assert done.stderr == b""
    assert int(json.loads(done.stdout)["streams"][0]["nb_read_frames"]) == SECONDS * FPS


@pytest.mark.players
@pytest.mark.needs("chromium", "web")
def test_nothing_plays_without_one(gated: str, token: str) -> None:
    for path in ("/v/film/main.m3u8", f"/t/{token[:-4]}AAAA/v/film/main.m3u8", "/v/other/main.m3u8"):
        with pytest.raises(HTTPError) as caught:
            urlopen(f"{gated}{path}", timeout=20)
        caught.value.close()
        assert caught.value.code == 401
