"""``streamgate …``: the command line, and the only module that sees both planes.

Each command imports what it needs when it runs, so that ``inspect`` and ``package`` start quickly.
Exit codes: 0 done; 1 a named error of the input or the surroundings; 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamgate.errors import StreamGateError

if TYPE_CHECKING:
    from streamgate.storage.assets import Asset

# NumPy's linear algebra starts a thread a core when it is imported; nothing here uses it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


_BESIDE = ("-m", "streamgate.control.process")  # what runs the auth role
INTERRUPTED = 130  # 128 + SIGINT, as shells tell it


# Groups of commands in modules of their own, imported where they are asked for.
_GROUPS = {
    "accounts": "streamgate.accounts_cli",
    "admin": "streamgate.admin_cli",
    "cache": "streamgate.cache_cli",
    "keys": "streamgate.keys_cli",
    "token": "streamgate.token_cli",
}


class _Commands(click.Group):
    """A group that prints a StreamGateError as one line and exits with 1; Ctrl-C gives 130."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_GROUPS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _GROUPS:
            return super().get_command(ctx, cmd_name)
        found: click.Command = getattr(importlib.import_module(_GROUPS[cmd_name]), cmd_name)
        return found

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except StreamGateError as e:
            click.echo(f"error: {e.detail} [{e.code}]", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Imports without the garbage collector: they leave none, and it would look at all of it, again at the end."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _version() -> str:
    from importlib.metadata import version

    return version("streamgate")


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"streamgate {_version()}")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Print the version."
)
def main() -> None:
    """Stream video: a file in, HLS and DASH out, cut just in time."""


@main.command()
@click.argument("path")
@click.option("--host", help="Address to listen on.  [setting: server.host]")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.  [setting: server.port]"
)
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings file (TOML).")
def serve(path: str, host: str | None, port: int | None, config_file: Path | None) -> None:
    """Serve PATH (a media file, an asset's folder, a folder of assets, or s3://bucket/prefix) over HTTP."""
    from streamgate.core.lifecycle import open_standard_streams

    open_standard_streams()
    with importing():
        from edge.configuration import Configuration
        from edge.parent import run
        from streamgate.storage.discovery import discover

    server = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    configuration = Configuration(config_file, {"server": server} if server else {})
    remote = "://" in path
    if remote:
        _check_address(path, config_file)
    found = [] if remote else discover(Path(path))
    if not found and not remote:
        raise StreamGateError("asset_not_found", f"{path}: no media file and no folder with an asset.toml")

    def announce(url: str) -> None:
        # What is in a bucket the workers list, and nobody else.
        told = [f"Watch      {url}/"]
        for ref in found:
            told += [f"HLS        {url}/v/{ref.id}/main.m3u8", f"DASH       {url}/v/{ref.id}/main.mpd"]
            told += [f"Gated      streamgate token mint {ref.id} --url {url}"] if ref.gated else []
            told += [f"Finding    {finding.detail} [{finding.code}]" for finding in ref.findings]
        # Names of files may be no UTF-8, and who started us may have gone: no reason not to serve.
        with contextlib.suppress(OSError):
            click.echo("\n".join(told).encode("utf-8", "backslashreplace"))

    sys.exit(run(configuration, path, announce=announce, beside=_BESIDE))


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
def inspect(file: Path, as_json: bool) -> None:
    """Tell what FILE (or an asset's folder) holds and how it would be streamed."""
    with importing():
        from streamgate.media import report

    asset = _open(file)
    told = report.describe(asset.indexes, [s.path.name for s in asset.sources], asset.presentation, asset.findings)
    if as_json:
        import json

        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    from streamgate.tables import show

    show(told)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--ts", is_flag=True, help="Also write MPEG-TS segments for old HLS players (main-ts.m3u8).")
@click.option(
    "--trick-play", is_flag=True, help="Also write keyframes that play alone, for scrubbing and fast forward."
)
@click.option("--quiet", "-q", is_flag=True, help="No progress bar and no summary.")
def package(file: Path, out: Path, ts: bool, trick_play: bool, quiet: bool) -> None:
    """Write HLS and DASH of FILE (or an asset's folder) into the folder OUT, for any web server."""
    with importing():
        from streamgate.storage import static

    asset = _open(file)
    for finding in asset.findings:
        click.echo(f"finding: {finding.subject}: {finding.detail} [{finding.code}]", err=True)
    if quiet or not sys.stderr.isatty():
        written = static.write(asset, out, ts=ts, trick_play=trick_play)
    else:
        written = _with_progress(asset, out, ts, trick_play)
    if not quiet:
        click.echo(f"{out}/main.m3u8\n{out}/main.mpd\n{written / 1e6:.1f} MB written")


def _check_address(url: str, config_file: Path | None) -> None:
    """Raise ``config_invalid`` where no store can be at ``url``."""
    from streamgate.core.config import load
    from streamgate.storage.objects.s3.address import parse

    if not url.startswith("s3://"):
        raise StreamGateError(
            "config_invalid", f"stores are folders or s3://bucket/prefix, not {url.partition(':')[0]}://"
        )
    parse(url, load(config_file).s3)


def _with_progress(asset: Asset, out: Path, ts: bool, trick_play: bool) -> int:
    from rich.console import Console
    from rich.progress import Progress

    from streamgate.storage import static

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("Packaging", total=None)

        def tell(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        return static.write(asset, out, ts=ts, trick_play=trick_play, progress=tell)


def _open(path: Path) -> Asset:
    """The one asset at ``path``; a container that is not MP4 is converted into a temporary folder first."""
    from streamgate.storage.assets import Preparing, discover, open_asset

    found = discover(path)
    if len(found) != 1:
        raise StreamGateError(
            "asset_not_found", f"{path}: {len(found)} assets here; name one file or one asset's folder"
        )
    try:
        return open_asset(found[0])
    except StreamGateError as e:
        if e.code != "source_unsupported":
            raise
    import tempfile

    from streamgate.transcode.remux import remux_in_worker

    with tempfile.TemporaryDirectory(prefix="streamgate-") as data:
        try:
            return open_asset(found[0], data=Path(data))
        except Preparing as e:
            for job in e.jobs:
                remux_in_worker(job.source, job.target)
        # The opened files stay readable when the folder is gone.
        return open_asset(found[0], data=Path(data))


@main.command()
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings file (TOML).")
@click.option("--default", "defaults", is_flag=True, help="Print a settings file with every default and its reason.")
def config(config_file: Path | None, defaults: bool) -> None:
    """Print the settings in force; secrets are left out."""
    from streamgate.core.config import Settings, load, render_toml
    from streamgate.storage.keys import ROOT_OF_ITS_OWN, root_of_its_own

    settings = Settings() if defaults else load(config_file)
    if outage := settings.leases.auth_outage:
        longest = settings.leases.duration + outage
        click.echo(f"# While the auth role is away, a viewer who was revoked there may stay for up to {longest:g} s.")
    if root_of_its_own(settings):
        click.echo(f"# {ROOT_OF_ITS_OWN}.")
    click.echo(render_toml(settings), nl=False)


if __name__ == "__main__":
    main()
