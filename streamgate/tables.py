"""Tables for people: what ``streamgate inspect`` prints."""

from __future__ import annotations

from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.markup import escape
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
