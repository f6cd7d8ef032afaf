"""``python -m benchmarks NAME [--json] [--check] …``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from benchmarks import output


@click.command()
@click.argument("name", type=click.Choice(["packaging"]))
@click.option(
    "--input",
    "given",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Footage to use instead of generated.",
)
@click.option("--runs", type=click.IntRange(1, 100), default=10, show_default=True, help="Pairs a ratio.")
@click.option("--minutes", type=click.IntRange(1, 120), help="Length of every title, for a quick look.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--check", is_flag=True, help="Exit with 1 where a goal is missed.")
def main(name: str, given: Path | None, runs: int, minutes: int | None, as_json: bool, check: bool) -> None:
    """Measure NAME against its peers."""
    from benchmarks import packaging

    rows = packaging.run(given, runs=runs, minutes=minutes)
    printed = (output.print_json if as_json else output.print_table)(rows)
    sys.exit(1 if check and any(row.met is False for row in printed) else 0)


if __name__ == "__main__":
    main()
