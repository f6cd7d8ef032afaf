"""``python -m benchmarks NAME [--json] [--check] …``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import click

from benchmarks import output
from benchmarks.measure import Row


@click.command()
@click.argument("name", type=click.Choice(["packaging", "delivery", "tokens", "origin", "sessions"]))
@click.option(
    "--input",
    "given",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Footage to use instead of generated.",
)
@click.option("--runs", type=click.IntRange(1, 100), default=10, show_default=True, help="Pairs a ratio.")
@click.option("--minutes", type=click.IntRange(1, 120), help="Length of every title, for a quick look.")
@click.option(
    "--payload", "payloads", multiple=True, help="Of delivery, origin or sessions only these rows: 1k, zipf, segment, …"
)
@click.option("--seconds", type=click.FloatRange(0.1, 60), default=3.0, show_default=True, help="A run under load.")
@click.option("--quick", is_flag=True, help="One short run each, to see whether everything works.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--check", is_flag=True, help="Exit with 1 where a goal is missed.")
def main(
    name: str,
    given: Path | None,
    runs: int,
    minutes: int | None,
    payloads: tuple[str, ...],
    seconds: float,
    quick: bool,
    as_json: bool,
    check: bool,
) -> None:
    """Measure NAME against its peers."""
    if quick:
        runs, minutes, seconds = 1, 1, 0.5
    rows: Iterator[Row]
    if name == "delivery":
        from benchmarks import delivery

        # A warm-up is some requests a connection, and of 6 MB each they take long.
        connections = 16 if quick else delivery.CONNECTIONS
        rows = delivery.run(runs=runs, seconds=seconds, minutes=minutes, connections=connections, chosen=payloads)
    elif name == "tokens":
        from benchmarks import delivery, tokens

        # What the check adds to a whole request is measured as delivery is.
        rows = chain(tokens.run(runs=runs), delivery.run(runs=runs, seconds=seconds, chosen=["token"]))
    elif name == "origin":
        from benchmarks import origin

        rows = origin.run(runs=runs, seconds=seconds, minutes=minutes, chosen=payloads)
    elif name == "sessions":
        from benchmarks import sessions

        least = {"connections": 16, "count": 3000, "slices": 1} if quick else {}
        rows = sessions.run(runs=runs, seconds=seconds, chosen=payloads, **least)
    else:
        from benchmarks import packaging

        rows = packaging.run(given, runs=runs, minutes=minutes)
    printed = (output.print_json if as_json else output.print_table)(rows)
    sys.exit(1 if check and any(row.met is False for row in printed) else 0)


if __name__ == "__main__":
    main()
