"""``streamgate admin …``: talks to a running server over the operator's socket, or over TLS."""

from __future__ import annotations

import json

import click

from streamgate.admin_client import Where, options

_IN_HEX = ("session", "token", "grant")  # the others are texts


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
@click.option("--token", help="One token of another issuer: the SHA-256 of its characters, in hex.")
@click.option("--grant", help="A grant, in hex: all its sessions.")
@click.option("--account", help="An account by its opaque id, which tokens have as sub: all its sessions.")
@click.option("--entitlement", help="What grants were given for, by its opaque id: all their sessions.")
@click.option("--asset", help="An asset's id: all its sessions.")
@click.option(
    "--exp", type=int, help="When the last of these tokens expires, s since 1970. Without it: revoked for good."
)
@click.pass_obj
def revoke(where: Where, /, exp: int | None, **given: str | None) -> None:
    """Refuse all tokens of a session, a key, … or one token from now on; done when every worker does."""
    named = {kind: text for kind, text in given.items() if text is not None}
    if len(named) != 1:
        raise click.UsageError("Name one thing to revoke.")
    what = {kind: text if kind in _IN_HEX else text.encode().hex() for kind, text in named.items()}
    where.ask("POST", "/revocations", {**what, "exp": exp})
    click.echo("revoked in every worker")
