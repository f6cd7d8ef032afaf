"""The pages' table, with a build and without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge import pages


def test_without_a_build_the_root_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "files", lambda package: tmp_path)
    table = pages.load()
    assert list(table) == ["/"]
    assert table["/"].media_type.startswith("text/plain")
    body = table["/"].body
    assert isinstance(body, bytes) and b"make setup" in body


def test_what_an_image_is_built_of_holds_the_pages() -> None:
    """They are not under version control, but no reason to leave them out of an image."""
    ignored = (Path(__file__).parents[2] / ".dockerignore").read_text().split()
    assert not [line for line in ignored if "web" in line or line.startswith(("streamgate", "*"))
                and line not in ("**/node_modules", "**/__pycache__", "**/*.so")]  # fmt: skip
