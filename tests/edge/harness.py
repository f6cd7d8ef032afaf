"""An edge that listens on a free port of this process, and clients for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import yarl
from aiohttp import web
from multidict import CIMultiDictProxy

from edge.api import PREFIX, make_api
from edge.assets import Library
from edge.node import Node, make_node
from edge.server import serve
from streamgate.core.health import Health
from streamgate.core.lifecycle import Role
from streamgate.core.settings import DrainSettings, EdgeSettings, LogSettings, ServerSettings, Settings, TokenSettings
from streamgate.core.telemetry import Telemetry
from streamgate.native.cat import Verifier
from streamgate.storage.assets import Asset, AssetRef, Gates, discover, open_asset

V_NAME = "v540-0123456789abcdef"


class Folder:
    """The assets of a folder, as the streaming role has them but without conversions; counts what is opened."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._gates = Gates()
        self.opened: list[str] = []

    def discover(self) -> list[AssetRef]:
        return discover(self.root, self._gates)

    def open(self, ref: AssetRef) -> Asset:
        self.opened.append(ref.id)
        return open_asset(ref)


@dataclass(frozen=True)
class Answer:
    """A whole response, its body as it came over the wire."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    def json(self) -> Any:
        import json

        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The problem's code."""
        assert self.headers["Content-Type"] == "application/problem+json"
        code: str = self.json()["code"]
        return code


@dataclass
class Edge:
    """A running edge."""

    node: Node
    url: str
    asked: asyncio.Event
    task: asyncio.Task[None]
    session: aiohttp.ClientSession
    stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def ask(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
        """One request by a real client; nothing of the path or the answer is changed."""
        target = yarl.URL(self.url + path, encoded=True)
        async with self.session.request(method, target, headers=headers, allow_redirects=False) as response:
            return Answer(response.status, response.headers, await response.read())

    @property
    def port(self) -> int:
        port = yarl.URL(self.url).port
        assert port is not None
        return port

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A bare connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.close()

    async def raw(self, request: bytes) -> Answer:
        """What comes back on a connection of its own until it ends; for requests that no client would send."""
        from aiohttp.http_parser import HeadersParser

        async with self.connect() as (reader, writer):
            writer.write(request)
            received = await reader.read()
        head, _, body = received.partition(b"\r\n\r\n")
        status, *lines = head.split(b"\r\n")
        headers, _ = HeadersParser().parse_headers([*lines, b""])
        return Answer(int(status.split()[1]), headers, body)

    async def stop(self) -> None:
        """Stop gracefully and wait for the end."""
        self.asked.set()
        await self.task


def settings(server: Mapping[str, Any] | None = None, drain: Mapping[str, Any] | None = None, **edge: Any) -> Settings:
    """Settings for a test: a free port, a short end, quiet logs, no disk tier, tokens that need no session."""
    return Settings(
        server=ServerSettings(**{"port": 0, **(server or {})}),
        drain=DrainSettings(**{"deadline": 5.0, **(drain or {})}),
        edge=EdgeSettings(**{"disk_bytes": 0, **edge}),
        log=LogSettings(access=False, level="error"),
        tokens=TokenSettings(without_session=True),
    )


@contextlib.asynccontextmanager
async def running(
    library: Library,
    chosen: Settings | None = None,
    mounts: Mapping[str, web.Application] | None = None,
    verifier: Verifier | None = None,
    *,
    remote: bool = False,
    auth: str = "",
) -> AsyncIterator[Edge]:
    """An edge over ``library``, stopped at the end. ``remote``: its sources are objects of a store. ``auth``: the socket of
    an auth role.
    """
    telemetry = await asyncio.to_thread(Telemetry)
    made = partial(make_node, chosen or settings(), library, telemetry, Health(), verifier, remote=remote, auth=auth)
    node = await asyncio.to_thread(made)
    asked, listens = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def stop() -> None:
        await node.leasing.stop()
        node.close()

    role = Role("streaming", start=node.leasing.start, stop=stop)
    mounts = {PREFIX: make_api(node, auth), **(mounts or {})} if auth else mounts
    task = asyncio.create_task(serve(node, [role], asked, announce=listens.set_result, mounts=mounts))
    await asyncio.wait([task, listens], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    connector = aiohttp.TCPConnector(limit=0)
    # Nothing is decoded and no header is sent unasked.
    skipped = ("Accept", "Accept-Encoding", "User-Agent")
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False, skip_auto_headers=skipped) as session:
        edge = Edge(node, listens.result(), asked, task, session)
        try:
            yield edge
        finally:
            await session.close()
            await edge.stop()
