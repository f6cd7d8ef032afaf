"""Copies of the project as a fresh clone has it."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.conftest import ROOT

_BUILT = shutil.ignore_patterns(
    ".git", ".venv", "*.so", "__pycache__", "node_modules", "var", "build", "dist", "*.egg-info", ".*_cache",
    ".benchmarks", ".hypothesis",
)  # fmt: skip


def copy(target: Path, *, pages: bool = False) -> Path:
    """The sources at ``target`` without anything that was built here; with ``pages`` the built pages are taken along."""
    shutil.copytree(ROOT, target, ignore=_BUILT)
    for made in (target / "native").glob("*.c"):
        if made.with_suffix(".pyx").exists():
            made.unlink()
    if not pages:
        shutil.rmtree(target / "streamgate/web", ignore_errors=True)
    return target
