"""A plain aiohttp server with HMACs of Python's ``hmac``, as one would write it in an afternoon; on uvloop, bodies in memory.

``python -m benchmarks.peers.plain PORT ROOT HEADERS`` with HEADERS as a JSON object.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import uvloop
from aiohttp import web

from benchmarks.peers.process import Server, folder, free_port, stopped

SECRET = b"benchmark"


def sign(expires: int) -> str:
    """The MAC of a token that is good for every path."""
    return hmac.new(SECRET, str(expires).encode(), hashlib.sha256).hexdigest()


def application(root: Path, headers: Mapping[str, str]) -> web.Application:
    """Files of ``root`` behind ``/t/{expires}-{mac}``."""
    bodies: dict[str, bytes] = {}

    async def send(request: web.Request) -> web.Response:
        expires, _, mac = request.match_info["token"].partition("-")
        if not expires.isdigit() or not hmac.compare_digest(mac.encode(), sign(int(expires)).encode()):
            raise web.HTTPUnauthorized
        if int(expires) < time.time():
            raise web.HTTPGone
        path = request.match_info["path"]
        body = bodies.get(path)
        if body is None:
            file = (root / path).resolve()
            if root not in file.parents or not file.is_file():
                raise web.HTTPNotFound
            body = bodies[path] = file.read_bytes()
        return web.Response(body=body, content_type="video/mp4", headers=headers)

    app = web.Application()
    app.router.add_get("/t/{token}/{path:.*}", send)
    return app


@dataclass
class Plain(Server):
    """The server as a process."""

    def path(self, path: str) -> str:
        """``path`` behind a token."""
        expires = int(time.time()) // 86400 * 86400 + 2 * 86400
        return f"/t/{expires}-{sign(expires)}{path}"


@contextlib.contextmanager
def plain(root: Path, core: int | None, *, headers: Mapping[str, str] | None = None) -> Iterator[Plain]:
    """The server on ``root``."""
    with folder() as own, stopped(Plain("aiohttp and Python hmac", free_port(), own)) as server:
        # Not by name: the folder that it runs in is its own.
        arguments = [str(server.port), str(root), json.dumps(dict(headers or {}))]
        place = str(Path(__file__).resolve().parents[2])
        code = f"import sys; sys.path.insert(0, {place!r}); from benchmarks.peers.plain import main; main()"
        server.run([sys.executable, "-c", code, *arguments], core)
        server.wait()
        yield server


def main() -> None:
    """Serve until killed."""
    port, root, headers = sys.argv[1:]
    app = application(Path(root).resolve(), json.loads(headers))
    web.run_app(app, host="127.0.0.1", port=int(port), access_log=None, print=None, loop=uvloop.new_event_loop())


if __name__ == "__main__":
    main()
