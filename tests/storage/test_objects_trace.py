"""What the store hears of a request's trace, and what it must not hear."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from streamgate.core import trace
from streamgate.core.settings.origin import S3Settings
from streamgate.storage.objects.store import open_store

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_trace_goes_on_to_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    heard: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        heard.append(request.headers.get("traceparent"))
        head = {"ETag": '"e"', "Content-Range": "bytes 0-3/4", "Last-Modified": "Mon, 23 Nov 2026 15:00:00 GMT"}
        return web.Response(status=206, body=b"film", headers=head)

    app = web.Application()
    app.router.add_get("/bucket/film.mp4", answer)
    async with TestServer(app) as server:
        store = await open_store("s3://bucket", S3Settings(endpoint=str(server.make_url("")), region="x"))
        assert await store.read("film.mp4", 0, 4) == b"film"
        trace.follow(PARENT)
        assert await store.read("film.mp4", 0, 4, etag="e") == b"film"
        await store.close()
    assert heard == [None, PARENT]
