"""Pictures that are turned, and pixels that are no squares: players show them in the shape that the source asks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.oracles import footage, shapes
from tests.players.abilities import BROWSER, Client
from tests.players.conftest import FPS, Opener
from tests.players.serving import serving
from tests.players.test_programs import ffmpeg

pytestmark = [pytest.mark.slow, pytest.mark.players]

# MPEG-TS has no place for a matrix.
SHAPED = [client for client in BROWSER if client.manifest != "main-ts.m3u8"]
FRAME = 38
# The number in the picture (tests.media_factory), read from where the picture's upper edge is shown.
NUMBER = """(p, [width, height, turned]) => {
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(p.video, 0, 0, width, height);
    let number = 0;
    for (let bit = 0; bit < 16; bit += 1) {
        const along = (bit + 0.5) / 16;
        const [x, y] = turned ? [width * 11 / 12, height * along] : [width * along, height / 12];
        const [red, green, blue] = context.getImageData(Math.floor(x), Math.floor(y), 1, 1).data;
        if (red + green + blue > 384) number += 2 ** bit;
    }
    return number;
}"""


@pytest.fixture(scope="module")
def shaped_origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("shapes")
    for name in shapes.SHOWN:
        footage.obtain(name, folder)
    with serving(folder) as url:
        yield url


@pytest.fixture
def open_shaped(chromium: Browser, pages: str, shaped_origin: str) -> Opener:
    return Opener(chromium, pages, shaped_origin)


@pytest.mark.needs("chromium", "web")
@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("name", shapes.SHOWN)
@pytest.mark.parametrize("client", SHAPED, ids=lambda client: client.name)
async def test_a_browser_shows_it_upright(client: Client, name: str, open_shaped: Opener) -> None:
    async with open_shaped(client, Path(name).stem) as player:
        await player.until("p => p.video.readyState >= 3")
        size = await player.run("p => [p.video.videoWidth, p.video.videoHeight]")
        assert tuple(size) == shapes.SHOWN[name]
        await player.run("(p, t) => p.seek(t)", (FRAME + 0.5) / FPS + client.offset)
        told = [*size, name == "turned.mp4"]
        await player.until(f"(p, [told, n]) => !p.video.seeking && ({NUMBER})(p, told) === n", [told, FRAME])
        await player.run("p => p.play()")
        await player.until("(p, t) => p.video.currentTime > t", (FRAME + 10) / FPS)
        await player.assert_clean()


@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize("manifest", ["main.m3u8", "main.mpd"])
@pytest.mark.parametrize("name", shapes.SHOWN)
def test_ffmpeg_shows_it_upright(manifest: str, name: str, shaped_origin: str) -> None:
    url = f"{shaped_origin}/v/{Path(name).stem}/{manifest}"
    # Square pixels: what a screen shows.
    square = "scale=trunc(iw*sar+0.5):ih,setsar=1"
    picture = ffmpeg(
        "-i", url, "-map", "0:v:0", "-frames:v", "1", "-vf", square, "-pix_fmt", "gray", "-f", "rawvideo", "-"
    )
    width, height = shapes.SHOWN[name]
    assert len(picture) == width * height
