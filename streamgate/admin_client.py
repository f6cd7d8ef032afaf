"""How commands reach a running server: over the operator's socket of this machine, or over TLS from another one."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from streamgate.errors import StreamGateError

_TIMEOUT_S = 30.0
_MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Where:
    """A server: the settings it was started with or its socket, or ``url`` and what lets us in there."""

    config_file: Path | None = None
    port: int | None = None
    socket_path: Path | None = None
    url: str | None = None
    token_file: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """What the server answers; raises ``admin_unreachable``, or the error that it tells."""
        with self._asked(method, path, body) as (answer, name):
            return _told(answer, answer.read(_MOST_BYTES), name)

    def follow(self, path: str, body: object) -> Iterator[Any]:
        """What the server answers to a POST, line by line as they come; raises as :meth:`ask`."""
        with self._asked("POST", path, body) as (answer, name):
            if answer.status >= 400:
                _told(answer, answer.read(_MOST_BYTES), name)
            while line := answer.readline(_MOST_BYTES):
                yield _told(answer, line, name)

    @contextlib.contextmanager
    def _asked(self, method: str, path: str, body: object) -> Iterator[tuple[http.client.HTTPResponse, str]]:
        """The answer, and who gives it."""
        connection, name = self._connection()
        headers = {"Authorization": f"Bearer {_token(self.token_file)}"} if self.url and self.token_file else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            yield connection.getresponse(), name
        except ssl.SSLCertVerificationError as error:
            raise StreamGateError("admin_unreachable", f"{name}: {error.verify_message}") from error
        except (OSError, http.client.HTTPException) as error:
            raise StreamGateError("admin_unreachable", f"{name}: {error}") from error
        finally:
            connection.close()

    def _connection(self) -> tuple[http.client.HTTPConnection, str]:
        if self.url is None:
            path = self._socket()
            return _UnixConnection(path), str(path)
        parts = urlsplit(self.url)
        if parts.scheme != "https" or not parts.hostname or parts.path not in ("", "/"):
            raise click.UsageError("--url is https://HOST:PORT.")
        try:
            tls = ssl.create_default_context(cafile=None if self.ca is None else str(self.ca))
            if self.cert is not None:
                tls.load_cert_chain(self.cert, self.key)
        except OSError as error:
            raise StreamGateError("config_invalid", f"--ca, --cert or --key: {error}") from error
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=_TIMEOUT_S, context=tls), self.url

    def _socket(self) -> Path:
        if self.socket_path is not None:
            return self.socket_path
        from streamgate.core.config import load

        return load(self.config_file).admin_socket(self.port)


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a group of commands that speak to a server; the context's object is then a :class:`Where`."""
    file = click.Path(path_type=Path)

    @click.option("--config", "config_file", type=file, help="The server's settings file (TOML).")
    @click.option(
        "--port", type=click.IntRange(1, 65535), help="The port that the server listens on.  [setting: server.port]"
    )
    @click.option("--socket", "socket_path", type=file, help="The socket itself.  [setting: admin.socket]")
    @click.option("--url", help="https://HOST:PORT, for a server elsewhere.  [setting: admin.listen]")
    @click.option("--token-file", type=file, help="File with the token to send there.  [setting: admin.token_file]")
    @click.option("--ca", type=file, help="PEM file of the authorities that its certificate may be of.")
    @click.option("--cert", type=file, help="PEM file of the certificate to show.  [setting: admin.client_ca]")
    @click.option("--key", type=file, help="PEM file of that certificate's key, where it is in another one.")
    @functools.wraps(command)
    def group(**where: Any) -> Any:
        click.get_current_context().obj = Where(**where)
        return command()

    return group


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(str(self._path))


def _told(answer: http.client.HTTPResponse, text: bytes, name: str) -> Any:
    """What JSON says; raises the error that it tells of."""
    try:
        told: Any = json.loads(text) if text else None
        if answer.status >= 400:
            raise StreamGateError(told["code"], told.get("detail", ""))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StreamGateError("admin_unreachable", f"{name}: this is no StreamGate ({answer.status})") from error
    return told


def _token(path: Path) -> str:
    try:
        token = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else "no token"
        raise StreamGateError("config_invalid", f"{path}: {reason}") from error
    if len(token.split()) != 1:
        raise StreamGateError("config_invalid", f"{path}: no token")
    return token
