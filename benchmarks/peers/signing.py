"""The least that starting to play could cost: aiohttp, one EdDSA signature verified, one HMAC made; on uvloop.

``python -m benchmarks.peers.signing SOCKET PUBLIC SIZE`` takes access tokens signed with the key PUBLIC (hex), and answers with SIZE bytes.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
import socket
import sys
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvloop
from aiohttp import web
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from benchmarks.peers.process import Server, folder, stopped


def application(public: bytes, size: int) -> web.Application:
    """A MAC of the token that ``Authorization: Bearer`` carries, if ``public`` has signed that; the body has ``size`` bytes."""
    key, secret = VerifyKey(public), secrets.token_bytes(32)

    async def start(request: web.Request) -> web.Response:
        message, _, signature = request.headers["Authorization"].removeprefix("Bearer ").rpartition(".")
        try:
            key.verify(message.encode(), urlsafe_b64decode(signature + "=="))
        except (BadSignatureError, ValueError):
            raise web.HTTPUnauthorized from None
        mac = hmac.digest(secret, message.encode(), "sha256").hex()
        return web.Response(status=201, body=mac.encode().ljust(size), content_type="application/json")

    app = web.Application()
    app.router.add_post("/{path:.*}", start)
    return app


@dataclass
class Signing(Server):
    """The server; ``unix`` is its socket."""

    unix: str = ""

    def answers(self) -> bool:
        """Whether it is there; raises OSError where it is not."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(self.unix)
        return True


@contextlib.contextmanager
def signing(core: int | None, *, public: bytes, size: int) -> Iterator[Signing]:
    """The server, as a process."""
    with folder() as own, stopped(Signing("aiohttp, EdDSA and HMAC", 0, own, unix=str(own / "socket"))) as server:
        place = str(Path(__file__).resolve().parents[2])
        code = f"import sys; sys.path.insert(0, {place!r}); from benchmarks.peers.signing import main; main()"
        server.run([sys.executable, "-c", code, server.unix, public.hex(), size], core)
        server.wait()
        yield server


def main() -> None:
    """Serve until killed."""
    path, public, size = sys.argv[1:]
    app = application(bytes.fromhex(public), int(size))
    loop = uvloop.new_event_loop()
    web.run_app(app, path=path, access_log=None, print=None, backlog=1024, loop=loop)


if __name__ == "__main__":
    main()
