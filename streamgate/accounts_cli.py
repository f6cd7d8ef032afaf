"""``streamgate accounts …``: what the file of accounts, and policies of passwords, hold of a password."""

from __future__ import annotations

import sys

import click


@click.group()
def accounts() -> None:
    """Prepare the file of accounts."""


@accounts.command("hash")
def hash_() -> None:
    """Print the hash of a password, which is asked for, or read as the first line of standard input."""
    import secrets

    from streamgate.access.accounts import SALT, hash_password

    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    click.echo(str(hash_password(password, secrets.token_bytes(SALT))))
