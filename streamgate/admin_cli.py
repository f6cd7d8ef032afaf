"""``streamgate admin …``: talks to a running server over the operator's socket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from streamgate.errors import StreamGateError

_TIMEOUT_S = 30.0


@click.group()
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="The server's settings file (TOML).")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="The port that the server listens on.  [setting: server.port]"
)
@click.option(
    "--socket", "socket_path", type=click.Path(path_type=Path), help="The socket itself.  [setting: admin.socket]"
)
@click.pass_context
def admin(ctx: click.Context, config_file: Path | None, port: int | None, socket_path: Path | None) -> None:
    """Look after a server that runs on this machine."""
    ctx.obj = (config_file, port, socket_path)


@admin.command()
@click.pass_obj
def status(where: tuple[Path | None, int | None, Path | None]) -> None:
    """Tell the server's state, and each worker's, as JSON."""
    click.echo(json.dumps(_ask(where, "GET", "/status"), indent=2))


@admin.command()
@click.pass_obj
def counters(where: tuple[Path | None, int | None, Path | None]) -> None:
    """Print every metric of the node."""
    for series, value in sorted(_ask(where, "GET", "/counters").items()):
        click.echo(f"{series} {value:g}")


@admin.command()
@click.pass_obj
def reload(where: tuple[Path | None, int | None, Path | None]) -> None:
    """Have settings and code loaded anew, as SIGHUP does."""
    _ask(where, "POST", "/reload")


@admin.command()
@click.pass_obj
def drain(where: tuple[Path | None, int | None, Path | None]) -> None:
    """Have the server stop gracefully, as SIGTERM does."""
    _ask(where, "POST", "/drain")


@admin.command()
@click.option("--session", help="The session, in hex: the first 16 bytes of the tokens' cti; a shorter cti as a whole.")
@click.option("--kid", help="The key, as its name is written in the settings: all its tokens.")
@click.option(
    "--exp", type=int, help="When the last of these tokens expires, s since 1970. Without it: revoked for good."
)
@click.pass_obj
def revoke(
    where: tuple[Path | None, int | None, Path | None], session: str | None, kid: str | None, exp: int | None
) -> None:
    """Refuse all tokens of a session or a key from now on; done when every worker does."""
    if (session is None) == (kid is None):
        raise click.UsageError("Name either a session or a kid.")
    what = {"session": session} if session is not None else {"kid": (kid or "").encode().hex()}
    _ask(where, "POST", "/revocations", {**what, "exp": exp})
    click.echo("revoked in every worker")


def _ask(where: tuple[Path | None, int | None, Path | None], method: str, path: str, body: object = None) -> Any:
    """What the server answers; raises ``admin_unreachable``, or the error that it tells."""
    import http.client
    import socket

    address = _socket(*where)

    class Connection(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(_TIMEOUT_S)
            self.sock.connect(str(address))

    connection = Connection("localhost")
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        text = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise StreamGateError("admin_unreachable", f"{address}: {error}") from error
    finally:
        connection.close()
    told: Any = json.loads(text) if text else None
    if answer.status >= 400:
        raise StreamGateError(told["code"], told.get("detail", ""))
    return told


def _socket(config_file: Path | None, port: int | None, socket_path: Path | None) -> Path:
    if socket_path is not None:
        return socket_path
    from streamgate.core.config import load

    return load(config_file).admin_socket(port)
