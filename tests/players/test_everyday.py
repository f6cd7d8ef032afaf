"""The everyday scenario: hls.js and dash.js in Chromium, from a page on another origin, in a few seconds."""

from __future__ import annotations

import pytest

from tests.players.abilities import BROWSER, Client
from tests.players.conftest import FPS, Opener

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.players, pytest.mark.needs("chromium", "web")]

EVERYDAY = [client for client in BROWSER if client.name in ("hls.js", "dash.js")]


@pytest.mark.parametrize("client", EVERYDAY, ids=lambda client: client.name)
async def test_loads_plays_and_seeks(open_player: Opener, client: Client) -> None:
    async with open_player(client) as player:
        await player.until("p => p.video.readyState >= 3")
        assert await player.run("p => p.rungs()") == [90, 180, 360]
        assert await player.run("p => p.adapter.audios().map((track) => track.language.slice(0, 2))") == ["en", "fr"]
        await player.run("p => p.play()")
        await player.until("p => p.video.currentTime > 1 && p.frameNumber() > 20")
        await player.run("p => p.video.pause()")
        await player.run("(p, t) => p.seek(t)", 150.5 / FPS + client.offset)
        await player.until("p => !p.video.seeking && p.frameNumber() === 150")
        await player.assert_clean()
