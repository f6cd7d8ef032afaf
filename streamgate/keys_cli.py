"""``streamgate keys …``: making and retiring the keys of playback tokens. No secret is an argument, or is printed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

_CONFIG = click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings file (TOML).")
_MARGIN_S = 0.5


@click.group()
def keys() -> None:
    """Make, list and retire the keys of playback tokens; a running server notices by itself."""


@keys.command()
@click.option(
    "--prepare", is_flag=True, help="Let it verify only, until `keys sign`: for its file to be copied to other edges."
)
@_CONFIG
def new(prepare: bool, config_file: Path | None) -> None:
    """Make the site's next key, which signs from now on; those before verify on until they are retired."""
    from streamgate.core.config import load
    from streamgate.storage.keys import workshop

    settings = load(config_file)
    place = workshop(settings)
    kid = place.new()
    if not prepare:
        # Every process has seen it before the first token is made with it.
        revalidate = settings.tokens.revalidate
        time.sleep(2 * revalidate + _MARGIN_S if revalidate else 0)
        place.sign(kid)
    click.echo(f"{kid} {'verifies' if prepare else 'signs'}")


@keys.command()
@click.argument("kid")
@_CONFIG
def sign(kid: str, config_file: Path | None) -> None:
    """Let the key KID of the site sign from now on."""
    from streamgate.core.config import load
    from streamgate.storage.keys import workshop

    workshop(load(config_file)).sign(kid)
    click.echo(f"{kid} signs")


@keys.command()
@click.argument("kid")
@_CONFIG
def retire(kid: str, config_file: Path | None) -> None:
    """Remove the key KID: its tokens are refused as soon as the servers notice."""
    from streamgate.core.config import load
    from streamgate.storage.keys import retire as remove

    remove(load(config_file), kid)
    click.echo(f"{kid} is retired")


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
@_CONFIG
def show(as_json: bool, config_file: Path | None) -> None:
    """Tell which keys there are, whose, and what they do."""
    from streamgate.core.config import load
    from streamgate.storage import keys as stored

    settings = load(config_file)
    known = stored.load(*stored.place(settings))
    signer = stored.signer(settings, known) if any(key.leased for key in known) else None
    rows = [
        {
            "kid": key.kid.decode(),
            "algorithm": key.algorithm,
            "issuer": key.issuer,
            "use": "signs" if key is signer else "verifies",
            "prefixes": list(key.prefixes),
        }
        for key in known
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for row in rows:
        click.echo(f"{row['kid']:<24} {row['algorithm']}  {row['use']:<9} {row['issuer']}")
