"""What players report of themselves (CTA-5004), as they themselves write it, keeps no request from the native path."""

from __future__ import annotations

import asyncio
import contextlib
from http.client import HTTPConnection
from urllib.request import urlopen

import pytest
from playwright.async_api import Browser, BrowserContext, Request

from tests.players import browser as browsing
from tests.players.abilities import BROWSER, Client

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.players,
    pytest.mark.slow,
    pytest.mark.needs("chromium", "web"),
]
BOTH = [client for client in BROWSER if client.name in ("hls.js", "dash.js")]


def natively(origin: str) -> int:
    """How many requests the server's hot path has answered."""
    with urlopen(f"{origin}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    [total] = [line for line in lines if line.startswith("streamgate_native_answers_total")]
    return int(float(total.rpartition(" ")[2]))


def reports(request: Request) -> bool:
    """Whether a request for media says what its player does, and in whose session."""
    in_header = 'sid="' in request.headers.get("cmcd-session", "")
    return in_header or "CMCD=" in request.url and "sid%3D%22" in request.url


def again(origin: str, asked: list[Request]) -> None:
    """Ask as the player did, on one connection."""
    host, port = origin.rpartition("/")[2].split(":")
    with contextlib.closing(HTTPConnection(host, int(port), timeout=10)) as connection:
        for _ in range(3):  # until the worker that it has come to has all in memory
            before = natively(origin)
            for request in asked:
                fields = {name: value for name, value in request.headers.items() if name.startswith("cmcd-")}
                connection.request("GET", request.url.removeprefix(origin), headers=fields)
                answer = connection.getresponse()
                assert answer.status == 200 and answer.read()
        assert natively(origin) - before == len(asked)


@pytest.mark.parametrize("client", BOTH, ids=lambda client: client.name)
async def test_what_players_report_stays_native(client: Client, chromium: Browser, pages: str, origin: str) -> None:
    asked: list[Request] = []

    async def prepare(context: BrowserContext) -> None:
        context.on("request", lambda request: asked.append(request))  # no bound method of a list will do

    url = f"{origin}/v/single/{client.manifest}"
    async with browsing.player(chromium, pages, client.engine, url, cmcd=True, prepare=prepare) as player:
        await player.run("p => p.play()")
        await player.until("p => p.video.currentTime > 1")
        await player.assert_clean()
    media = [request for request in asked if request.url.partition("?")[0].endswith(".m4s")]
    assert len(media) > 2 and all(map(reports, media))
    await asyncio.to_thread(again, origin, media)
