"""Debian's Redis, and the bare server that reads bodies from it: aiohttp and redis-py on uvloop, one GET a request.

``python -m benchmarks.peers.redis PORT URL HEADERS`` serves the value of each path, with HEADERS as a JSON object.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import uvloop
from aiohttp import web

from benchmarks.peers.process import Server, folder, free_port, stopped

POOL = 64  # connections to Redis: as many as the client has to the server


@contextlib.contextmanager
def store(core: int | None) -> Iterator[Server]:
    """An empty Redis that keeps nothing on disk."""
    with folder() as own, stopped(Server("Redis", free_port(), own)) as server:
        options = f"--bind 127.0.0.1 --port {server.port} --appendonly no --dir {own}"
        server.run(["/usr/bin/redis-server", *options.split(), "--save", ""], core)
        server.wait()
        yield server


def put(port: int, values: Mapping[str, bytes]) -> None:
    """Set ``values`` in the Redis on ``port``."""
    from redis import Redis

    with Redis(host="127.0.0.1", port=port) as client:
        for key, value in values.items():
            client.set(key, value)


def application(url: str, headers: Mapping[str, str]) -> web.Application:
    """The value of the path, or 404."""
    from redis.asyncio import BlockingConnectionPool, Redis

    client = Redis(connection_pool=BlockingConnectionPool.from_url(url, max_connections=POOL))

    async def send(request: web.Request) -> web.Response:
        body = await client.get(request.path)
        if body is None:
            raise web.HTTPNotFound
        return web.Response(body=body, headers=headers)

    async def close(app: web.Application) -> None:
        await client.aclose()

    app = web.Application()
    app.router.add_get("/{path:.*}", send)
    app.on_cleanup.append(close)
    return app


@contextlib.contextmanager
def bare(redis: int, core: int | None, *, headers: Mapping[str, str] | None = None) -> Iterator[Server]:
    """The server, with the Redis on port ``redis`` behind it."""
    with folder() as own, stopped(Server("aiohttp and redis-py GET", free_port(), own)) as server:
        arguments = [str(server.port), f"redis://127.0.0.1:{redis}/0", json.dumps(dict(headers or {}))]
        place = str(Path(__file__).resolve().parents[2])
        code = f"import sys; sys.path.insert(0, {place!r}); from benchmarks.peers.redis import main; main()"
        server.run([sys.executable, "-c", code, *arguments], core)
        server.wait()
        yield server


def main() -> None:
    """Serve until killed."""
    port, url, headers = sys.argv[1:]
    app = application(url, json.loads(headers))
    web.run_app(app, host="127.0.0.1", port=int(port), access_log=None, print=None, loop=uvloop.new_event_loop())


if __name__ == "__main__":
    main()
