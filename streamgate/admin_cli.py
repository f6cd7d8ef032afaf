"""``streamgate admin …``: talks to a running server over the operator's socket, or over TLS."""

from __future__ import annotations

import json

import click

from streamgate.admin_client import Where, options


@click.group()
@options
def admin() -> None:
    """Look after a running server."""


@admin.command()
@click.pass_obj
def status(where: Where) -> None:
    """Tell the server's state, and each worker's, as JSON."""
    click.echo(json.dumps(where.ask("GET", "/status"), indent=2))


@admin.command()
@click.pass_obj
def counters(where: Where) -> None:
    """Print every metric of the node."""
    for series, value in sorted(where.ask("GET", "/counters").items()):
        click.echo(f"{series} {value:g}")


@admin.command()
@click.pass_obj
def reload(where: Where) -> None:
    """Have settings and code loaded anew, as SIGHUP does."""
    where.ask("POST", "/reload")


@admin.command()
@click.pass_obj
def drain(where: Where) -> None:
    """Have the server stop gracefully, as SIGTERM does."""
    where.ask("POST", "/drain")


@admin.command()
@click.option("--session", help="The session, in hex: the first 16 bytes of the tokens' cti; a shorter cti as a whole.")
@click.option("--kid", help="The key, as its name is written in the settings: all its tokens.")
@click.option(
    "--exp", type=int, help="When the last of these tokens expires, s since 1970. Without it: revoked for good."
)
@click.pass_obj
def revoke(where: Where, session: str | None, kid: str | None, exp: int | None) -> None:
    """Refuse all tokens of a session or a key from now on; done when every worker does."""
    if (session is None) == (kid is None):
        raise click.UsageError("Name either a session or a kid.")
    what = {"session": session} if session is not None else {"kid": (kid or "").encode().hex()}
    where.ask("POST", "/revocations", {**what, "exp": exp})
    click.echo("revoked in every worker")
