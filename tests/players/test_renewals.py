"""Gated films on our page: what it asks of a viewer, and how it goes on when a token counts no more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Route, expect

from tests.edge.nodes import RunningNode
from tests.players import sessions
from tests.players.abilities import ALLOWED_CONSOLE
from tests.players.browser import unexpected
from tests.players.sessions import ACCOUNT, PASSWORD, Viewer, viewing

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.players,
    pytest.mark.needs("chromium", "web"),
]

REFUSED = {r"the server responded with a status of 401": "the console tells each of them"}
TOKEN = "CTA-Common-Access-Token"


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sessions.library(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="module")
def running(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    with sessions.gated_node(films, tmp_path_factory.mktemp("data")) as node:
        yield node


def assert_clean(viewer: Viewer, allowed: dict[str, str] | None = None) -> None:
    assert unexpected(viewer.console, ALLOWED_CONSOLE | (allowed or {})) == []
    assert viewer.failed == []


async def test_a_renewal_where_it_stands(running: RunningNode, chromium: Browser) -> None:
    """A token that counts no more, in a pause: the page gets another one, and goes on at the same place."""
    async with viewing(chromium, running.url, "hls", "header") as viewer:
        await viewer.until_played(0.3)
        stands = await viewer.pause()
        old = set(viewer.tokens)

        async def refuse(route: Route) -> None:
            if route.request.headers.get(TOKEN.lower()) in old:
                told = {"code": "token_expired", "renew": "/api/v1/playback/renew", "status": 401}
                await route.fulfill(status=401, content_type="application/problem+json", body=json.dumps(told))
            else:
                await route.continue_()

        await viewer.page.route("**/v/film/**", refuse)
        await viewer.page.evaluate(PLACES)
        await viewer.until_played(stands + 4.5, 4)
        assert viewer.statuses("playback/renew") == [200]
        assert min(await viewer.page.evaluate("() => window.places")) >= stands - 0.1
        assert_clean(viewer, REFUSED)


# Where it plays from, whenever it begins to.
PLACES = """() => {
    const video = document.querySelector("video");
    window.places = [];
    video.addEventListener("playing", () => window.places.push(video.currentTime));
}"""


@pytest.mark.slow
class TestDoor:
    async def test_the_ways_in(self, running: RunningNode, chromium: Browser) -> None:
        """A password, an account, a video that is not there: the page asks, and says in words what is wrong."""
        async with viewing(chromium, running.url, "hls", "header", "secret") as viewer:
            door = viewer.page.locator("#door")
            await expect(door).to_contain_text("This video needs a password")
            await door.get_by_label("Password").fill("guessed")
            await door.get_by_role("button").click()
            await expect(door.get_by_role("alert")).to_have_text("This is not the password.")
            await door.get_by_label("Password").fill(PASSWORD)
            await door.get_by_role("button").click()
            await viewer.until_played(0.5)
            await expect(door).to_be_hidden()
            await viewer.page.goto(f"{running.url}/#asset=members&player=hls")
            await expect(door).to_contain_text("Sign in")
            await door.get_by_label("Account").fill(ACCOUNT)
            await door.get_by_label("Password").fill("guessed")
            await door.get_by_role("button").click()
            await expect(door.get_by_role("alert")).to_contain_text("no such account")
            await door.get_by_label("Password").fill(PASSWORD)
            await door.get_by_role("button").click()
            await viewer.until_played(0.5)
            # The cookie of that sign-in outlives the page.
            await viewer.page.reload()
            await viewer.until_played(0.5)
            await expect(door).to_be_hidden()
            await viewer.page.goto(f"{running.url}/#asset=nothing&player=hls")
            await expect(viewer.page.locator("#problem-title")).to_have_text("This video is gone.")
