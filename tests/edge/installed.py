"""Code of the data plane that is exchanged while it runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import edge


class Installed:
    """The data plane's modules in ``folder``, where another release of the one that is named can take its place."""

    def __init__(self, folder: Path, module: str) -> None:
        self.folder = folder
        self._module = folder / f"edge/{module}.py"
        shutil.copytree(Path(edge.__path__[0]), folder / "edge", ignore=shutil.ignore_patterns("__pycache__"))
        self._first = self._module.read_text()

    def install(self, text: str) -> None:
        """Add this to what the module was, as installers do it: written aside and renamed."""
        aside = self._module.with_suffix(".new")
        aside.write_text(self._first + text)
        aside.replace(self._module)
