"""An auth role that does as it is told, faults included: it knows sessions by heart and echoes what is below /api."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web


class FakeAuth:
    """Grants leases of ``seconds`` to the ``sessions`` it knows, by hex with their asset; ``refused``: a code by session.

    It answers nothing while ``awake`` is not set, and with ``status`` where that is no 200. ``calls`` is what it was asked.
    """

    def __init__(self, seconds: float = 60.0) -> None:
        self.seconds = seconds
        self.sessions: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.calls: list[dict[str, Any]] = []
        self.requests: list[tuple[web.BaseRequest, bytes]] = []
        self.awake = asyncio.Event()
        self.awake.set()
        self.status = 200
        self.answer = web.Response
        self.extra: dict[str, Any] = {}

    @property
    def extended(self) -> list[list[list[str]]]:
        """The extensions of each call that had some."""
        return [call["extend"] for call in self.calls if call["extend"]]

    @contextlib.asynccontextmanager
    async def listening(self, path: Path) -> AsyncIterator[None]:
        """Serve at a Unix socket; whoever waits for an answer at the end is cut off."""
        app = web.Application()
        app.router.add_post("/leases", self._leases)
        app.router.add_route("*", "/api/{rest:.*}", self._api)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(path)).start()
        try:
            yield
        finally:
            await runner.cleanup()
            path.unlink(missing_ok=True)

    async def _leases(self, request: web.Request) -> web.Response:
        call = await request.json()
        self.calls.append(call)
        await self.awake.wait()
        granted, refused = {}, {}
        pairs = [(row[0], row[3], row[2]) for row in call["ask"]] + [(row[0], row[1], "") for row in call["extend"]]
        for session, network, asset in pairs:
            known = self.sessions.get(session)
            name = f"{session}|{network}"
            if session in self.refused or known is None:
                refused[name] = self.refused.get(session, "session_unknown")
            elif asset and asset != known:
                refused[name] = "session_asset"
            else:
                granted[name] = self.granted(known)
        return web.json_response({"granted": granted, "refused": refused}, status=self.status)

    def granted(self, asset: str) -> dict[str, Any]:
        now = int(time.time())
        row = {
            "seconds": self.seconds,
            "grant": "ab" * 16,
            "epoch": 1,
            "account": "somebody",
            "entitlements": ["ticket"],
        }
        return {**row, "asset": asset, "start": now, "cap": now + 3600, "networks": [], **self.extra}

    async def _api(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request, await request.read()))
        await self.awake.wait()
        answer = self.answer(status=201, text="made", headers={"X-StreamGate-Secret": "no", "Keep-Alive": "9"})
        answer.set_cookie("one", "1")
        answer.set_cookie("two", "2")
        return answer
