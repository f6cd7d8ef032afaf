"""``streamgate token …``: making playback tokens and looking at them. Keys come from the configuration, never from arguments."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from streamgate.access.keys import AnyKey
    from streamgate.native.cat import Key, Verifier

_CONFIG = click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings file (TOML).")


@click.group()
def token() -> None:
    """Make playback tokens (Common Access Tokens), and look at them."""


@token.command()
@click.argument("asset")
@click.option("--lifetime", type=click.IntRange(1), help="Seconds until it ends.  [setting: tokens.lifetime]")
@click.option("--subject", help="Whom it is for: an opaque id, which everybody on the way can read.")
@click.option(
    "--carriage",
    type=click.Choice(("path", "cookie", "header")),
    default="path",
    help="Where players carry it. In a cookie or a header it lives for tokens.short_life, and answers renew it.",
    show_default=True,
)
@click.option("--method", "methods", multiple=True, help="A method it is for (GET); any, where none is given.")
@click.option(
    "--network", "networks", multiple=True, help="A network it is for (203.0.113.0/24); any, where none is given."
)
@click.option("--url", help="Print the addresses of the asset's playlists at this server instead of the token.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="The port that the server listens on.  [default: that of --url; setting: server.port]",
)
@click.option(
    "--offline", is_flag=True, help="Ask no server for a session; it counts only where tokens.without_session is set."
)
@_CONFIG
def mint(
    asset: str,
    lifetime: int | None,
    subject: str | None,
    carriage: str,
    methods: tuple[str, ...],
    networks: tuple[str, ...],
    url: str | None,
    port: int | None,
    offline: bool,
    config_file: Path | None,
) -> None:
    """Make a token that opens ASSET, as the start of a session of its own, which the running server is told of."""
    import ipaddress
    import secrets
    import time
    from urllib.parse import urlsplit

    from streamgate.access import tokens
    from streamgate.core.config import load
    from streamgate.storage import keys

    settings = load(config_file)
    try:
        wanted = [ipaddress.ip_network(network) for network in networks]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--network") from None
    signer = keys.signer(settings, keys.configured(settings))
    session = secrets.token_bytes(tokens.SESSION)
    expires, renewal = int(time.time()) + (lifetime or settings.tokens.lifetime), None
    if not (offline or settings.tokens.without_session):
        try:
            asked = port or (urlsplit(url).port if url else None)
        except ValueError:
            raise click.BadParameter("this is no address of a server", param_hint="--url") from None
        wish = {"asset": asset, "lifetime": lifetime, "subject": subject, "carriage": carriage}
        session, cap = _registered(settings.auth_socket(asked), wish)
        # Without a session nobody would renew it.
        renewal = tokens.Renewal.by(carriage, settings.tokens.short_life)
        expires = cap if renewal is None else min(int(time.time()) + renewal.add, cap)
    made = tokens.mint(
        signer,
        asset=asset,
        session=session,
        expires=expires,
        subject=subject,
        methods=methods,
        networks=wanted,
        renewal=renewal,
    )
    if url is None:
        click.echo(made)
        return
    if carriage != "path":
        click.echo(
            f"{carriage:<10} {tokens.COOKIE}={made}"
            if carriage == "cookie"
            else f"{carriage:<10} {tokens.NAME}: {made}"
        )
    before = f"/t/{made}" if carriage == "path" else ""
    for name, leaf in (("HLS", "main.m3u8"), ("DASH", "main.mpd")):
        click.echo(f"{name:<10} {url.rstrip('/')}{before}/v/{asset}/{leaf}")


def _look(verifier: Verifier, token: str, key: Key, covered: bytes, signature: bytes, known: Sequence[AnyKey]) -> None:
    """Have a token of another issuer believed, if its signature is right."""
    from streamgate.access import foreign
    from streamgate.access.keys import PublicKey

    for each in known:
        if isinstance(each, PublicKey) and (each.kid, foreign.NUMBERS[each.algorithm]) == (key.kid, key.algorithm):
            if not foreign.load(each.public, each.algorithm).right(covered, signature):
                return
    verifier.remember(token, 2**62)


def _registered(socket_path: Path, wanted: Mapping[str, object]) -> tuple[bytes, int]:
    """A new session's id and its end; raises ``auth_unavailable``, or what the auth role has against it."""
    from streamgate.admin_client import Where
    from streamgate.errors import StreamGateError

    try:
        told = Where(socket_path=socket_path).ask(
            "POST", "/sessions", {name: value for name, value in wanted.items() if value is not None}
        )
    except StreamGateError as error:
        if error.code != "admin_unreachable":
            raise
        said = f"{error.detail}; --offline makes a token without a session"
        raise StreamGateError("auth_unavailable", said) from error
    return bytes.fromhex(told["session"]), told["cap"]


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
        known = keys.configured(load(config_file))
        verifier = cat.Verifier([key.verifying() for key in known])
        key, covered, signature, digest, identity = verifier.covered(given)
        if not key.leased:
            # By either it can be revoked; by the second also as nobody here has seen it written yet.
            told["sha256"], told["sha256_signed"] = digest.hex(), identity.hex()
            _look(verifier, given, key, covered, signature, known)
        believed = verifier.read(given)
        told["session"] = believed.session.hex()
        if time.time() >= believed.deadline:
            raise StreamGateError("token_expired")
        told["verdict"] = "token_unsupported" if believed.unsupported else "good"
    except StreamGateError as error:
        told["verdict"] = error.code
        told["detail"] = error.detail
    click.echo(json.dumps(told, indent=2, ensure_ascii=False))
