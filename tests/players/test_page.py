"""The player page that the server itself gives, under the server's Content-Security-Policy."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route, expect

from tests.players.abilities import ALLOWED_CONSOLE
from tests.players.browser import DEADLINE_S, Watched, unexpected
from tests.players.serving import serving

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.slow,
    pytest.mark.players,
    pytest.mark.needs("chromium", "web"),
]

LABELS = {
    "hls": "hls.js",
    "dash": "dash.js",
    "shaka-hls": "Shaka · HLS",
    "shaka-dash": "Shaka · DASH",
    "native": "Browser’s own HLS",
}
# The page's policy forbids eval, on which Page.wait_for_function rests: wait for an event inside instead.
PLAYED = """seconds => new Promise((resolve) => {
    const video = document.querySelector("video");
    video.addEventListener("timeupdate", () => video.currentTime > seconds && resolve(video.currentTime));
    video.play();
})"""


@pytest_asyncio.fixture(loop_scope="session")
async def page(chromium: Browser) -> AsyncIterator[Page]:
    context = await chromium.new_context()
    try:
        yield await context.new_page()
    finally:
        await context.close()


async def play_for(page: Page, seconds: float) -> None:
    await asyncio.wait_for(page.evaluate(PLAYED, seconds), DEADLINE_S)


@pytest.mark.parametrize("engine", LABELS)
async def test_plays(page: Page, origin: str, engine: str) -> None:
    watched = Watched(page, engine)
    await page.goto(f"{origin}/#asset=ladder&player={engine}")
    await expect(page.locator("#title")).to_have_text("A ladder")
    await expect(page.locator("#veil")).to_be_hidden(timeout=DEADLINE_S * 1000)
    await play_for(page, 1)
    await expect(page.locator(f"input[value={engine}]")).to_be_checked()
    await expect(page.locator("#stats")).to_contain_text(LABELS[engine])
    if engine != "native":
        await expect(page.locator("#subtitle")).to_have_text("0:08 · up to 360p · 3 rungs")
        await expect(page.locator("#audio option")).to_have_text(["English", "Français"])
        await expect(page.locator("#text option")).to_have_text(["Off", "English", "Français"])
        await page.locator("#audio").select_option("Français")
        await expect(page.locator("#audio option:checked")).to_have_text("Français")
        await play_for(page, 2)
    assert unexpected(watched.console, ALLOWED_CONSOLE) == []
    assert watched.failed == []
    assert [url for url in watched.requests if not url.startswith((origin, "blob:", "data:"))] == []


async def test_keyboard_and_addresses(page: Page, origin: str) -> None:
    await page.goto(f"{origin}/#asset=single&player=hls")
    await expect(page.locator("#veil")).to_be_hidden(timeout=DEADLINE_S * 1000)
    await expect(page.locator("#links code")).to_have_text(
        [f"{origin}/v/single/main.m3u8", f"{origin}/v/single/main-ts.m3u8", f"{origin}/v/single/main.mpd"]
    )
    await page.keyboard.press("m")
    assert await page.evaluate("() => document.querySelector('video').muted")
    await page.keyboard.press("Tab")
    await expect(page.locator(".skip")).to_be_focused()
    await page.locator("input[value=hls]").focus()
    await page.keyboard.press("ArrowRight")
    await expect(page.locator("#stats")).to_contain_text("dash.js")
    assert (await page.evaluate("() => location.hash")) == "#asset=single&player=dash"
    await page.locator("a.asset", has_text="A ladder").click()
    await expect(page.locator("#links code").first).to_have_text(f"{origin}/v/ladder/main.m3u8")


async def test_says_in_words_what_is_wrong(page: Page, library: Path, tmp_path: Path) -> None:
    shutil.copytree(library / "single", tmp_path / "films" / "going")
    (tmp_path / "films" / "broken.mp4").write_bytes(b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + b"\xff" * 64)
    with serving(tmp_path / "films") as origin:
        await page.goto(f"{origin}/#asset=broken&player=hls")
        await expect(page.locator("#problem-title")).to_have_text("This video cannot be played.")
        await expect(page.locator("#findings code")).to_have_text(["source_truncated"])
        await page.route("**/v/going/main.m3u8", lambda route: route.fulfill(
            status=503, content_type="application/problem+json", body='{"code":"overloaded","detail":"too much work is under way"}'
        ))  # fmt: skip
        await page.goto(f"{origin}/#asset=going&player=hls")
        await expect(page.locator("#problem-title")).to_have_text("The server is busy.", timeout=2 * DEADLINE_S * 1000)
        await expect(page.locator("#problem-detail")).to_contain_text("too much work is under way")
        await page.unroute_all()
        await page.locator("#retry").click()
        await expect(page.locator("#problem")).to_be_hidden()
        await expect(page.locator("#veil")).to_be_hidden(timeout=DEADLINE_S * 1000)


async def test_an_asset_that_is_being_prepared_starts_by_itself(page: Page, origin: str) -> None:
    states = iter(["preparing", "preparing"])

    async def listing(route: Route) -> None:
        response = await route.fetch()
        body = await response.json()
        for asset in body["assets"]:
            asset["state"] = next(states, "ready")
        await route.fulfill(response=response, json=body)

    await page.route("**/assets.json", listing)
    await page.goto(f"{origin}/#asset=ladder&player=hls")
    await expect(page.locator("#veil-text")).to_contain_text("being prepared")
    await expect(page.locator("#veil")).to_be_hidden(timeout=DEADLINE_S * 1000)
    await play_for(page, 0.5)
