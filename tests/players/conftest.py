"""Media, server, pages and browser: one of each for the whole run, and a fresh browser context for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.media_factory import Audio, Video, ladder, make
from tests.players import browser as browsing
from tests.players.abilities import Client
from tests.players.serving import serving

SECONDS = 8
FPS = 25
HEVC = {"preset": "ultrafast", "x265-params": "keyint=50:min-keyint=50:scenecut=0:open-gop=0:log-level=error"}


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Assets of 8 s at 25 fps: ``ladder`` (three rungs, two languages, two subtitles), ``single`` (one rung), ``muxed`` (the
    sound in the same file, its priming before the picture) and ``mixed`` (H.264 and HEVC, AAC and E-AC-3)."""
    folder = tmp_path_factory.mktemp("library")
    ladder(folder / "ladder", seconds=SECONDS)
    one = ((320, 180, 160_000),)
    ladder(folder / "single", seconds=SECONDS, rungs=one, languages=("eng",), subtitles=False, title="One rung")
    make(folder / "muxed.mp4", Video(size=(320, 180), gop=50, bframes=0), Audio(), seconds=SECONDS)
    mixed = ladder(
        folder / "mixed", seconds=SECONDS, rungs=one, languages=("eng",), subtitles=False, title="Mixed codecs"
    )
    make(mixed / "hevc.mp4", Video(codec="libx265", size=(320, 180), gop=50, options=HEVC), None, seconds=SECONDS)
    make(mixed / "surround.mp4", None, Audio(codec="eac3", layout="5.1", bitrate=192_000), seconds=SECONDS)
    with (mixed / "asset.toml").open("a") as description:
        description.write('\n[[source]]\nfile = "hevc.mp4"\n\n[[source]]\nfile = "surround.mp4"\nlanguage = "eng"\n')
    return folder


@pytest.fixture(scope="session")
def origin(library: Path) -> Iterator[str]:
    """The origin of a running server."""
    with serving(library) as url:
        yield url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def pages() -> AsyncIterator[str]:
    """The origin of the test pages."""
    async with browsing.serving_pages() as url:
        yield url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """One Chromium for the session."""
    async with async_playwright() as playwright, browsing.chromium(playwright) as browser:
        yield browser


class Opener:
    """``open_player(client)`` is an async context with the player that has loaded the client's manifest."""

    def __init__(self, chromium: Browser, pages: str, origin: str) -> None:
        self._open = partial(browsing.player, chromium, pages)
        self.origin = origin

    def __call__(
        self, client: Client, asset: str = "ladder", *, small_buffer: bool = False
    ) -> AbstractAsyncContextManager[browsing.Watched]:
        return self._open(client.engine, f"{self.origin}/v/{asset}/{client.manifest}", small_buffer=small_buffer)


@pytest.fixture
def open_player(chromium: Browser, pages: str, origin: str) -> Opener:
    return Opener(chromium, pages, origin)
