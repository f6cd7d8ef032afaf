"""What is logged of a folder of assets that cannot be listed: when that changes, and else once a minute."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from edge.library import FolderLibrary
from edge.remuxes import Remuxes
from streamgate.core.settings import MediaSettings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.storage import assets
from streamgate.storage.assets import AssetRef


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def remuxes() -> Iterator[Remuxes]:
    made = Remuxes(1, Telemetry())
    yield made
    made.close()


def look(library: FolderLibrary) -> str:
    """The code of what keeps the assets from being listed."""
    try:
        library.discover()
    except StreamGateError as error:
        return error.code
    return ""


def unreadable(*_: object) -> list[AssetRef]:
    """A listing that fails."""
    raise StreamGateError("source_unreadable", "the disk says no")


def test_a_missing_folder_is_told_once_a_minute(
    tmp_path: Path, remuxes: Remuxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, clock = tmp_path / "media", Clock()
    root.mkdir()
    library = FolderLibrary(root, MediaSettings(), tmp_path / "data", remuxes, clock)
    with structlog.testing.capture_logs() as logs:
        assert look(library) == ""
        assert not logs
        root.rmdir()
        for second in range(150):
            clock.now = float(second)
            assert look(library) == "source_unreadable"
        assert [line["event"] for line in logs] == ["the assets cannot be listed"] * 3
        assert all(line["log_level"] == "error" for line in logs)
        # Another reason is told at once, and so is the end.
        monkeypatch.setattr(assets, "discover", unreadable)
        assert look(library) == look(library) == "source_unreadable"
        assert [line["detail"] for line in logs[3:]] == ["the disk says no"]
        monkeypatch.undo()
        root.mkdir()
        assert look(library) == ""
        assert logs[-1]["event"] == "the assets can be listed again"
        seen = len(logs)
        assert look(library) == ""
        assert len(logs) == seen
