"""Tables for people: what ``streamgate inspect`` prints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

# These are copied and compared: never broken into lines.
_WHOLE = ("Rendition", "Codec", "Size", "Length")
# Columns where the output goes to a file or another program.
_PIPED = 120


def show(told: dict[str, Any], console: Console | None = None) -> None:
    """Print what :func:`streamgate.media.report.describe` told."""
    out = console or Console()
    if not out.is_terminal:
        out.width = _PIPED
    for source in told["sources"]:
        layout = "fragmented" if source["fragmented"] else "progressive"
        out.print(f"[bold]{escape(source['file'])}[/]  {source['bytes'] / 1e6:.1f} MB, {layout} MP4", highlight=False)
        out.print(_tracks(source["tracks"]))
    out.print(
        f"[bold]Presentation[/]  {_clock(told['duration'])}, target {told['target_duration']} s"
        + ("" if told["independent_segments"] else ", cut at open keyframes"),
        highlight=False,
    )
    out.print(_renditions(told["renditions"]))
    if told["findings"]:
        out.print(_findings(told["findings"]))


def show_cache(told: dict[str, Any], console: Console | None = None) -> None:
    """Print what ``GET /cache`` of the operator's socket told."""
    out = console or Console()
    if not out.is_terminal:
        out.width = _PIPED
    table = _table(
        "Tier", "Objects", "Bytes", "Hits", "Part", "Purged", right=("Objects", "Bytes", "Hits", "Part", "Purged")
    )
    asked = sum(tier["hits"] for tier in told["tiers"].values()) + told["misses"]
    for name, tier in told["tiers"].items():
        cells = (
            _count(tier.get("objects")),
            _size(tier.get("bytes")),
            _count(tier["hits"]),
            _part(tier["hits"], asked),
        )
        table.add_row(name, *cells, _count(tier.get("purged")))
    table.add_row("misses", "", "", _count(told["misses"]), _part(told["misses"], asked), "")
    out.print(table)


def show_warm_up(news: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Show how far a warm-up is as ``POST /cache/warm`` tells it, then its result, which is returned."""
    told: dict[str, Any] = {}
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("Warming", total=None)
        for told in news:
            progress.update(task, completed=told["done"], total=told["objects"] or None)
    if told:
        kept = f"{told['fetched']} fetched, {told['present']} there already"
        lost = f", {told['dropped']} in no tier" * bool(told["dropped"])
        failed = "".join(f", {number} failed [{code}]" for code, number in sorted(told["failed"].items()))
        said = f"{told['objects']} objects: {kept}{lost}{failed}; {_size(told['bytes'])} in {told['seconds']:.1f} s"
        Console(soft_wrap=True).print(escape(said), highlight=False)
    return told


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}".replace(",", " ")


def _size(number: int | None) -> str:
    return "" if number is None else f"{number / 1e6:.1f} MB"


def _part(number: int, of: int) -> str:
    return f"{100 * number / of:.1f} %" if of else ""


def _table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in right else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column in _WHOLE)
    return table


def _tracks(tracks: list[dict[str, Any]]) -> Table:
    right = ("Track", "Samples", "Length", "kbit/s", "Keys", "Gap")
    table = _table("Track", "Kind", "Codec", "Size", "Samples", "Length", "kbit/s", "Keys", "Gap", right=right)
    kinds = {"vide": "video", "soun": "audio", "text": "text", "sbtl": "text", "subt": "text"}
    for t in tracks:
        keys = t.get("keyframes") or {"count": None, "longest_gap": None}
        size = f"{t['width']:g}x{t['height']:g}" if "width" in t else t["language"]
        table.add_row(
            str(t["id"]),
            escape(kinds.get(t["handler"], t["handler"])),
            escape(t["codec"] or t["entry"]),
            escape(size),
            str(t["samples"]),
            _clock(t["duration"]),
            f"{t['bitrate'] / 1000:.0f}",
            "" if keys["count"] is None else str(keys["count"]),
            "" if keys["longest_gap"] is None else f"{keys['longest_gap']:.3f} s",
        )
    return table


def _renditions(renditions: list[dict[str, Any]]) -> Table:
    right = ("Rate", "Count", "Length", "Peak", "Mean")
    table = _table("Rendition", "Codec", "Size", "Rate", "Count", "Length", "Peak", "Mean", right=right)
    for r in renditions:
        if r["kind"] == "text":
            table.add_row(r["name"], "wvtt", escape(r["language"]), "", str(r["segments"]), "", "", "")
            continue
        rate = f"{r['frame_rate']:.3f}".rstrip("0").rstrip(".") if r["frame_rate"] else ""
        table.add_row(
            r["name"],
            escape(r["codec"]),
            f"{r['width']}x{r['height']}" if r["kind"] == "video" else escape(r["language"]),
            rate,
            str(r["segments"]),
            _spread(r["durations"]),
            f"{r['bandwidth'] / 1000:.0f}k",
            f"{r['average_bandwidth'] / 1000:.0f}k",
        )
    return table


def _findings(findings: list[dict[str, Any]]) -> Table:
    table = _table("Finding", "Subject", "Detail")
    for f in findings:
        table.add_row(f"[yellow]{f['code']}[/]", escape(f["subject"]), escape(f["detail"]))
    return table


def _spread(durations: list[float]) -> str:
    """The shortest and the longest of ``durations``, once where they are the same."""
    short, long = f"{min(durations):.2f}", f"{max(durations):.2f}"
    return f"{long} s" if short == long else f"{short}–{long} s"


def _clock(seconds: float) -> str:
    """``1:02:03.456`` of a number of seconds."""
    whole, part = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return (f"{hours}:{minute:02d}" if hours else f"{minute}") + f":{second:02d}.{part:03d}"
