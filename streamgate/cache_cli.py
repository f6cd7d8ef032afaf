"""``streamgate cache …``: what a running node keeps; over the operator's socket, or from another machine."""

from __future__ import annotations

import json
from typing import Any

import click

from streamgate.admin_client import Where, options
from streamgate.errors import CODES, StreamGateError


@click.group()
@options
def cache() -> None:
    """Look after what a running server keeps."""


@cache.command()
@click.option("--url", "url", help="What is at one address: https://HOST/v/… or /v/….")
@click.option("--prefix", help="Everything whose address begins with this.")
@click.option("--asset", help="All of an asset, whose files are looked at anew.")
@click.option("--tag", help="Everything with this tag: kind:segment, rendition:NAME, or one of asset.toml.")
@click.option("--soft", is_flag=True, help="Serve what there is once more, while it is fetched again.")
@click.pass_obj
def purge(where: Where, url: str | None, prefix: str | None, asset: str | None, tag: str | None, soft: bool) -> None:
    """Throw something out; done when every worker of the node has, while other nodes hear of it."""
    named = {"url": url, "prefix": prefix, "asset": asset, "tag": tag}
    given = {kind: what for kind, what in named.items() if what is not None}
    if len(given) != 1:
        raise click.UsageError("Name one of --url, --prefix, --asset and --tag.")
    told = where.ask("POST", "/purges", {**given, "soft": soft})
    ((kind, what),) = ((name, told[name]) for name in named if name in told)
    click.echo(f"{'marked as stale' if soft else 'purged'} in every worker: {kind} {what} ({told['seconds']:.3f} s)")


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
@click.pass_obj
def stat(where: Where, as_json: bool) -> None:
    """Tell what each tier holds, and how often something was found there."""
    told = where.ask("GET", "/cache")
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    from streamgate.tables import show_cache

    show_cache(told)


@cache.command()
@click.argument("asset")
@click.option(
    "--rendition", "renditions", multiple=True, help="Only this one, by its name or what is in front of the dash."
)
@click.option("--manifests/--no-manifests", default=True, help="Playlists, MPD and subtitles too.")
@click.option("--limit", type=click.IntRange(1), help="Segments of each rendition, from the first on.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, without a progress bar.")
@click.pass_obj
def warm(
    where: Where, asset: str, renditions: tuple[str, ...], manifests: bool, limit: int | None, as_json: bool
) -> None:
    """Have everything of ASSET made and stored, while no viewer waits; it goes on if this command is interrupted."""
    body = {"asset": asset, "renditions": renditions, "manifests": manifests, "limit": limit or 0}
    told: dict[str, Any] = {}
    if as_json:
        *_, told = where.follow("/cache/warm", body)
        click.echo(json.dumps(told, indent=2))
    else:
        from streamgate.tables import show_warm_up

        told = show_warm_up(where.follow("/cache/warm", body))
    if told.get("ended") != "done":
        ended = told.get("ended") or "admin_unreachable"
        raise StreamGateError(
            ended if ended in CODES else "internal", f"{told.get('done', 0)} objects were done by then"
        )
    if told["failed"]:
        raise SystemExit(1)
