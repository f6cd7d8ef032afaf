"""Printing rows: a table for people, or one JSON object a line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Row


def print_json(rows: Iterable[Row]) -> list[Row]:
    """One JSON object a line, each as soon as it is known; returns the rows."""
    printed = []
    for row in rows:
        print(json.dumps(row.plain()), flush=True)
        if row.note:
            print(f"{row.case}, {row.peer or row.metric}: {row.note}", file=sys.stderr, flush=True)
        printed.append(row)
    return printed


def print_table(rows: Iterable[Row]) -> list[Row]:
    """One table, with the interval beside each ratio; returns the rows. What was measured before an error is shown too."""
    known: list[Row] = []
    try:
        known.extend(rows)
    finally:
        _print(known)
    return known


def _print(rows: list[Row]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("Case", "Metric"):
        table.add_column(column)
    for column in ("Ours", "Peer's", "Ratio", "95 % interval", "Goal (aim)"):
        table.add_column(column, justify="right")
    for column in ("Met", "Peer"):
        table.add_column(column)
    for row in rows:
        table.add_row(
            row.case,
            f"{row.metric}, {row.unit}",
            _number(row.ours),
            _number(row.peer_value),
            _number(row.ratio),
            "" if row.low is None or row.high is None else f"{_number(row.low)} to {_number(row.high)}",
            "" if row.goal is None else _number(row.goal) + (f" ({_number(row.aim)})" if row.aim else ""),
            {True: "[green]yes[/]", False: "[red]no[/]", "undecided": "[yellow]undecided[/]", "void": "void", None: ""}[
                row.met
            ],
            row.peer or "",
        )
    console = Console(width=160)
    console.print(table)
    for row in rows:
        if row.note:
            console.print(
                f"{row.case}, {row.peer or row.metric}: {row.note}", style="dim", markup=False, highlight=False
            )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
