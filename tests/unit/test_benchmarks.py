"""The benchmarks run, on titles of a minute; no goals are checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_smallest_run_prints_every_row(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "packaging", "--minutes", "1", "--runs", "1", "--json", "--check"]
    surroundings = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["case"] for row in rows] == [
        "open and index",
        "4 s segment of ours (mmap)",
        "4 s segment of others (pread)",
        "media playlist",
        "MPD",
        "package to HLS + DASH",
        "package to HLS + DASH",
        "start-up of package",
    ]
    assert all(row["ours"] > 0 for row in rows)
    assert {row["met"] for row in rows} == {"undecided", None}
