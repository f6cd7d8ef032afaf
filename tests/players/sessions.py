"""A node with gated films whose tokens live for two seconds and whose leases for one, and its page in a browser."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, Request, Response

from streamgate.access.accounts import hash_password
from tests.edge.nodes import RunningNode, node, until
from tests.media_factory import ladder
from tests.players.browser import DEADLINE_S, Watched

LEASE_S, TOKEN_S = 1.0, 2
SECONDS = 24
RATE = 2  # twice as fast: a request of each track every two seconds
PASSWORD, ACCOUNT = "open sesame", "ada"

SMALL = """(() => {
    const on = (name, change) => {
        let value;
        Object.defineProperty(window, name, { configurable: true, get: () => value, set(made) { value = change(made) ?? made; } });
    };
    on("Hls", (Hls) => class extends Hls {
        constructor(given) { super({ ...given, maxBufferLength: 2, maxMaxBufferLength: 2, backBufferLength: 0 }); }
    });
    on("dashjs", (dashjs) => {
        const make = dashjs.MediaPlayer;
        dashjs.MediaPlayer = Object.assign(() => ({ create() {
            const player = make().create();
            player.updateSettings({ streaming: { buffer: { bufferTimeDefault: 2, bufferTimeAtTopQuality: 2,
                bufferToKeep: 1, bufferPruningInterval: 1 } } });
            return player;
        } }), make);
    });
    on("shaka", (shaka) => {
        const Player = shaka.Player;
        shaka.Player = class extends Player {
            constructor(...given) { super(...given); this.configure({ streaming: { bufferingGoal: 2, rebufferingGoal: 1, bufferBehind: 0 } }); }
        };
    });
})()"""
"""Two seconds ahead at most and nothing behind: set as soon as a player's script defines it, before the page makes one."""
# The page forbids eval, on which Page.wait_for_function rests: this waits inside.
PLAYED = """([seconds, rate]) => new Promise((resolve, reject) => {
    const video = document.querySelector("video"), problem = document.querySelector("#problem");
    const watch = () => {
        if (video.playbackRate !== rate) video.playbackRate = rate;
        if (video.currentTime > seconds) resolve(video.currentTime);
        else if (!problem.hidden) reject(new Error(problem.innerText));
        else {
            if (video.paused && video.readyState > 2) video.play().catch(() => {}); // not before the player has made it its own
            setTimeout(watch, 20);
        }
    };
    watch();
})"""


def library(root: Path) -> Path:
    """``film`` for everybody who asks, ``secret`` with a password, ``members`` for an account."""
    made = ladder(
        root / "made", seconds=SECONDS, rungs=((320, 180, 160_000),), languages=("eng",), subtitles=False, gop=25
    )
    policies = {
        "film": 'kind = "public"',
        "secret": f'kind = "password"\npassword = "{hash_password(PASSWORD, bytes(16))}"',
        "members": f'kind = "allow"\naccounts = ["{ACCOUNT}"]',
    }
    for name, policy in policies.items():
        folder = Path(shutil.copytree(made, root / name))
        described = folder / "asset.toml"
        text = described.read_text().replace("A ladder", name.title())
        described.write_text(f"gated = true\n{text}\n[policy]\n{policy}\n")
    shutil.rmtree(made)
    return root


@contextmanager
def gated_node(root: Path, data: Path, **more: dict[str, Any]) -> Iterator[RunningNode]:
    """A node of two workers; every viewer comes from one address, so the rates of one are high."""
    data.mkdir(parents=True, exist_ok=True)
    accounts = data / "accounts.toml"
    accounts.write_text(f'[accounts]\n{ACCOUNT} = "{hash_password(PASSWORD, bytes(16))}"\n')
    accounts.chmod(0o600)
    many = {"starts_per_account": 10_000, "logins_per_address": 10_000, "renewals_per_session": 600, "max_streams": 0}
    settings: dict[str, dict[str, Any]] = {
        "auth": {"enabled": True, "accounts": str(accounts), **many},
        "leases": {"duration": LEASE_S},
        "tokens": {"short_life": TOKEN_S},
        "edge": {"list_gated": True},
        **more,
    }
    with node(root, data, **settings) as running:
        until(lambda: (told := running.status()["auth"]) and told["state"] == "serving", "the auth role")
        yield running


@dataclass
class Viewer(Watched):
    """Our page with one player and one carriage, and what the server answered it."""

    answers: list[tuple[float, str, int]] = field(default_factory=list)
    """When it was asked for (s since 1970), the method and path, and the status."""
    tokens: list[str] = field(default_factory=list)
    """What its requests carried in the header, in their order, each once in a row."""
    grants: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.page.on("request", self._on_request)
        self.page.on("response", self._on_response)

    def _on_request(self, request: Request) -> None:
        token = request.headers.get("cta-common-access-token")
        if token is not None and self.tokens[-1:] != [token]:
            self.tokens.append(token)

    async def _on_response(self, response: Response) -> None:
        path = urlsplit(response.url).path
        asked = response.request.timing["startTime"] / 1000
        self.answers.append((asked, f"{response.request.method} {path}", response.status))
        if response.status == 201:
            self.grants.append((await response.json())["grant"])

    def statuses(self, part: str, since: float = 0.0) -> list[int]:
        """Of the answers to requests for what has ``part`` in its path."""
        return [status for at, name, status in self.answers if part in name and at >= since]

    async def until_played(self, seconds: float, rate: float = RATE) -> None:
        """Play until then; the page must not show a problem meanwhile."""
        try:
            await asyncio.wait_for(self.page.evaluate(PLAYED, [seconds, rate]), DEADLINE_S)
        except Exception as e:
            raise AssertionError(f"{self.engine} never played to {seconds} s: {await self.told()}") from e

    async def time(self) -> float:
        return float(await self.page.evaluate("() => document.querySelector('video').currentTime"))

    async def pause(self) -> float:
        """Pause; where it stands then."""
        await self.page.evaluate("() => document.querySelector('video').pause()")
        return await self.time()

    async def told(self) -> dict[str, Any]:
        """For error messages."""
        script = """() => { const v = document.querySelector("video"); return {
            time: v.currentTime, ready: v.readyState, paused: v.paused, error: v.error && v.error.message,
            ahead: v.buffered.length && v.buffered.end(v.buffered.length - 1), stats: document.querySelector("#stats").innerText,
            problem: document.querySelector("#problem").innerText }; }"""
        return {"page": await self.page.evaluate(script), "console": self.console, "failed": self.failed,
            "answers": [(name[-40:], status) for _, name, status in self.answers[-12:]]}  # fmt: skip


@asynccontextmanager
async def viewing(
    chromium: Browser, origin: str, engine: str, carriage: str = "path", asset: str = "film"
) -> AsyncIterator[Viewer]:
    """The node's own page in a fresh context, at an asset."""
    context = await chromium.new_context()
    try:
        await context.add_init_script(SMALL)
        viewer = Viewer(await context.new_page(), f"{engine} by {carriage}")
        await viewer.page.goto(f"{origin}/#asset={asset}&player={engine}&carriage={carriage}")
        yield viewer
    finally:
        await context.close()
