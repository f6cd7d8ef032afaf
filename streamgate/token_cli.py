"""``streamgate token …``: making playback tokens and looking at them. Keys come from the configuration, never from arguments."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

_CONFIG = click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings file (TOML).")


@click.group()
def token() -> None:
    """Make playback tokens (Common Access Tokens), and look at them."""


@token.command()
@click.argument("asset")
@click.option("--lifetime", type=click.IntRange(1), help="Seconds until it ends.  [setting: tokens.lifetime]")
@click.option("--subject", help="Whom it is for: an opaque id, which everybody on the way can read.")
@click.option("--method", "methods", multiple=True, help="A method it is for (GET); any, where none is given.")
@click.option(
    "--network", "networks", multiple=True, help="A network it is for (203.0.113.0/24); any, where none is given."
)
@click.option("--url", help="Print the addresses of the asset's playlists at this server instead of the token.")
@_CONFIG
def mint(
    asset: str,
    lifetime: int | None,
    subject: str | None,
    methods: tuple[str, ...],
    networks: tuple[str, ...],
    url: str | None,
    config_file: Path | None,
) -> None:
    """Make a token that opens ASSET, as the start of a session of its own."""
    import ipaddress
    import secrets
    import time

    from streamgate.access import tokens
    from streamgate.core.config import load
    from streamgate.errors import StreamGateError
    from streamgate.storage import keys

    settings = load(config_file)
    try:
        wanted = [ipaddress.ip_network(network) for network in networks]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--network") from None
    known = keys.configured(settings)
    signers = (
        [key for key in known if key.kid.decode() == settings.tokens.signer] if settings.tokens.signer else known[-1:]
    )
    if not signers:
        raise StreamGateError("config_invalid", "tokens.signer: there is no key of this kid")
    made = tokens.mint(
        signers[0],
        asset=asset,
        session=secrets.token_bytes(tokens.SESSION),
        expires=int(time.time()) + (lifetime or settings.tokens.lifetime),
        subject=subject,
        methods=methods,
        networks=wanted,
    )
    if url is None:
        click.echo(made)
        return
    for name, leaf in (("HLS", "main.m3u8"), ("DASH", "main.mpd")):
        click.echo(f"{name:<10} {url.rstrip('/')}/t/{made}/v/{asset}/{leaf}")


@token.command()
@click.argument("text", metavar="TOKEN", default="-")
@_CONFIG
def show(text: str, config_file: Path | None) -> None:
    """Tell what TOKEN says and whether this site believes it. "-", or nothing: it is read from standard input."""
    import time

    from streamgate.access import tokens
    from streamgate.core.config import load
    from streamgate.errors import StreamGateError
    from streamgate.native import cat
    from streamgate.storage import keys

    given = sys.stdin.readline().strip() if text == "-" else text
    tag, protected, unprotected, claims = cat.decode(given)
    kid = protected.get(4, unprotected.get(4))
    told: dict[str, object] = {
        "kid": kid.decode("utf-8", "backslashreplace") if isinstance(kid, bytes) else None,
        "algorithm": protected.get(1),
        "type": {17: "COSE_Mac0", 18: "COSE_Sign1"}[tag],
        "claims": tokens.named(claims),
    }
    try:
        verifier = cat.Verifier([key.verifying() for key in keys.configured(load(config_file))])
        believed = verifier.read(given)
        told["session"] = believed.session.hex()
        if time.time() >= believed.deadline:
            raise StreamGateError("token_expired")
        told["verdict"] = "token_unsupported" if believed.unsupported else "good"
    except StreamGateError as error:
        told["verdict"] = error.code
        told["detail"] = error.detail
    click.echo(json.dumps(told, indent=2, ensure_ascii=False))
