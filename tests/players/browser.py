"""Chromium and the origin that serves the test pages; the media always comes from another origin."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, Request

from tests.players.abilities import ALLOWED_CONSOLE, ALLOWED_WARNINGS, ALLOWED_WHEN_BUSY

ROOT = Path(__file__).resolve().parent.parent.parent
# No sandbox: CI runs as root. The rest keeps Chromium off the network and lets videos start without a click.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
)
DEADLINE_S = 30.0  # for events that an idle machine brings within a second or two


def make_pages_app() -> web.Application:
    """The page under test, and the page's sources with the players' scripts of ``web/node_modules``."""
    app = web.Application()
    app.router.add_static("/pages", Path(__file__).parent / "pages")
    app.router.add_static("/web", ROOT / "web")
    return app


@asynccontextmanager
async def serving_pages() -> AsyncIterator[str]:
    """Serve the test pages on a free port; yields their origin."""
    runner = web.AppRunner(make_pages_app())
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def chromium(playwright: Playwright) -> AsyncIterator[Browser]:
    """Debian's Chromium, headless, with a fresh profile."""
    program = shutil.which("chromium") or "chromium"
    browser = await playwright.chromium.launch(executable_path=program, args=list(FLAGS))
    try:
        yield browser
    finally:
        await browser.close()


def unexpected(lines: list[str], allowed: dict[str, str]) -> list[str]:
    """The lines that match no pattern of ``allowed`` (pattern -> the reason it is all right)."""
    return [line for line in lines if not any(re.search(pattern, line) for pattern in allowed)]


@dataclass
class Watched:
    """A page with everything that it complained about, and every URL it asked for."""

    page: Page
    engine: str = ""
    console: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.console.append(f"error: {error}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfailed", self._on_failed)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("warning", "error", "assert"):
            self.console.append(f"{message.type}: {message.text}")

    def _on_failed(self, request: Request) -> None:
        # A player that leaves a rung or ends aborts what is under way: that is its right.
        if request.failure != "net::ERR_ABORTED":
            self.failed.append(f"{request.url}: {request.failure}")

    async def run(self, script: str, argument: Any = None) -> Any:
        """Evaluate ``player => …`` on the page's player; the argument is its second parameter."""
        call = self.page.evaluate(f"argument => ({script})(window.player, argument)", argument)
        try:
            return await asyncio.wait_for(call, DEADLINE_S)
        except TimeoutError:
            raise AssertionError(
                f"{self.engine}: {script} ({argument!r}) never returned: {await self.state()}"
            ) from None

    async def until(self, condition: str, argument: Any = None, *, deadline: float = DEADLINE_S) -> None:
        """Wait until ``player => boolean`` holds; what the player knows is in the error when it never does."""
        expression = f"argument => window.player !== undefined && ({condition})(window.player, argument)"
        try:
            await self.page.wait_for_function(expression, arg=argument, timeout=deadline * 1000, polling=20)
        except Exception as e:
            raise AssertionError(f"{self.engine}: never {condition} ({argument!r}): {await self.state()}") from e

    async def state(self) -> dict[str, Any]:
        """What the player has to say, for error messages."""
        script = """() => { const p = window.player; return p && {
            time: p.video.currentTime, ready: p.video.readyState, paused: p.video.paused, height: p.video.videoHeight,
            events: p.events.slice(-12), errors: p.errors, warnings: p.warnings, cues: p.cues(), frames: p.frames(),
            media: p.video.error && p.video.error.message}; }"""
        return {"player": await self.page.evaluate(script), "console": self.console, "failed": self.failed}

    async def assert_clean(self) -> None:
        """No error, no warning that is not on the list of those with a reason, and no stall that did not end."""
        await self.until("p => p.stalls() === 0")
        state = await self.state()
        told = json.dumps(state, indent=1)
        assert state["player"]["errors"] == [], told
        busy = os.getloadavg()[0] > (os.cpu_count() or 1)
        allowed = ALLOWED_WARNINGS | (ALLOWED_WHEN_BUSY if busy else {})
        assert unexpected(state["player"]["warnings"], allowed) == [], told
        assert unexpected(self.console, ALLOWED_CONSOLE) == [], told
        assert self.failed == [], told


@asynccontextmanager
async def player(
    browser: Browser,
    pages: str,
    engine: str,
    url: str,
    *,
    small_buffer: bool = False,
    cmcd: bool = False,
    prepare: Callable[[BrowserContext], Awaitable[None]] | None = None,
) -> AsyncIterator[Watched]:
    """The test page with one player that has loaded ``url``, in a context of its own that ``prepare`` may change before.

    ``cmcd``: hls.js and dash.js report what they do, each in its way.
    """
    wanted = {name: "1" for name, on in (("small", small_buffer), ("cmcd", cmcd)) if on}
    query = urlencode({"engine": engine, "url": url} | wanted)
    context = await browser.new_context()
    try:
        if prepare is not None:
            await prepare(context)
        watched = Watched(await context.new_page(), engine)
        await watched.page.goto(f"{pages}/pages/player.html?{query}")
        await watched.until("p => p.events.includes('loaded') || p.errors.length > 0")
        assert "loaded" in await watched.run("p => p.events"), await watched.state()
        yield watched
    finally:
        await context.close()
