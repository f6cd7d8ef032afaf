"""Tables for people: names out of a file are text, whatever they hold."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from streamgate.tables import show

TRACK: dict[str, Any] = {
    "id": 1,
    "handler": "[/x",
    "entry": "[/b]",
    "codec": None,
    "language": "[i]",
    "samples": 1,
    "duration": 1.0,
    "bitrate": 1000,
}


def test_names_are_no_markup() -> None:
    told = {
        "sources": [{"file": "film [x264].mp4", "bytes": 1, "fragmented": False, "tracks": [TRACK]}],
        "duration": 3723.5,
        "target_duration": 4,
        "independent_segments": True,
        "renditions": [{"name": "teng-1", "kind": "text", "language": "[b]", "segments": 1}],
        "findings": [{"code": "codec_unsupported", "subject": "[/b]", "detail": "no [red]place[/]"}],
    }
    out = io.StringIO()
    show(told, Console(file=out))
    printed = out.getvalue()
    for expected in ("film [x264].mp4", "[/b]", "[/x", "[i]", "no [red]place[/]", "1:02:03.500"):
        assert expected in printed
