"""A bare proxy from HTTP to S3: aiohttp and aioboto3 on uvloop, a ranged GET a request, its body sent on as it comes.

``python -m benchmarks.peers.passthrough PORT ENDPOINT BUCKET HEADERS`` sends bytes [START, START + LENGTH) of KEY to who
asks for ``/START/LENGTH/KEY``, with HEADERS as a JSON object.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web

from benchmarks.peers.process import Server, folder, free_port, stopped
from benchmarks.peers.seaweed import BUCKET, REGION, Seaweed

CONNECTIONS = 64  # to S3
_CHUNK = 256 * 1024


def path(key: str, start: int, length: int) -> str:
    """Where the proxy has these bytes."""
    return f"/{start}/{length}/{key}"


def span(start: int, length: int) -> str:
    """The field Range of these bytes."""
    return f"bytes={start}-{start + length - 1}"


@contextlib.asynccontextmanager
async def client(options: Mapping[str, Any]) -> AsyncIterator[Any]:
    """aioboto3's client of S3, as a program that cares for speed makes it: one for its whole life."""
    import aioboto3
    from aiobotocore.config import AioConfig

    config = AioConfig(max_pool_connections=CONNECTIONS, s3={"addressing_style": "path"})
    async with aioboto3.Session().client("s3", **options, config=config) as made:
        yield made


def application(endpoint: str, bucket: str, headers: Mapping[str, str]) -> web.Application:
    """The proxy."""
    found: web.AppKey[Any] = web.AppKey("found")

    async def connect(app: web.Application) -> AsyncIterator[None]:
        async with client({"endpoint_url": endpoint, "region_name": REGION}) as made:
            app[found] = made
            yield

    async def send(request: web.Request) -> web.StreamResponse:
        told = request.match_info
        start, length = int(told["start"]), int(told["length"])
        answer = await request.app[found].get_object(Bucket=bucket, Key=told["key"], Range=span(start, length))
        response = web.StreamResponse(headers=headers)
        response.content_length = answer["ContentLength"]
        async with answer["Body"] as body:
            await response.prepare(request)
            async for chunk in body.content.iter_chunked(_CHUNK):
                await response.write(chunk)
        await response.write_eof()
        return response

    app = web.Application()
    app.cleanup_ctx.append(connect)
    app.router.add_get(r"/{start:\d+}/{length:\d+}/{key:.*}", send)
    return app


@contextlib.contextmanager
def passthrough(s3: Seaweed, core: int | None, *, headers: Mapping[str, str] | None = None) -> Iterator[Server]:
    """The proxy in front of ``s3``."""
    with folder() as own, stopped(Server("aiohttp and aioboto3", free_port(), own)) as server:
        arguments = [str(server.port), s3.endpoint, BUCKET, json.dumps(dict(headers or {}))]
        place = str(Path(__file__).resolve().parents[2])
        code = f"import sys; sys.path.insert(0, {place!r}); from benchmarks.peers.passthrough import main; main()"
        server.run([sys.executable, "-c", code, *arguments], core, s3.environment)
        server.wait()
        yield server


def main() -> None:
    """Serve until killed."""
    port, endpoint, bucket, headers = sys.argv[1:]
    app = application(endpoint, bucket, json.loads(headers))
    web.run_app(app, host="127.0.0.1", port=int(port), access_log=None, print=None, loop=uvloop.new_event_loop())


if __name__ == "__main__":
    main()
