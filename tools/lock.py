"""Writes ``constraints.txt``: the newest versions that pyproject.toml allows, of everything that any extra draws in."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Let pip resolve, without installing anything."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = ",".join(project["project"]["optional-dependencies"])
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--quiet"]
    resolve = [*pip, "install", "--dry-run", "--ignore-installed", "--report", "-", f"{ROOT}[{extras}]"]
    report = json.loads(subprocess.run(resolve, check=True, stdout=subprocess.PIPE).stdout)
    pins = {}
    for item in report["install"]:
        name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
        pins[name] = item["metadata"]["version"]
    del pins["streamgate"]
    lines = [f"{name}=={version}\n" for name, version in sorted(pins.items())]
    head = "# Versions that were tested together. `make lock` writes this file from pyproject.toml.\n"
    (ROOT / "constraints.txt").write_text(head + "".join(lines))
    print(f"{len(lines)} packages")


if __name__ == "__main__":
    main()
