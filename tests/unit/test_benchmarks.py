"""The benchmarks run, on titles of a minute; no goals are checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from click.testing import CliRunner

from benchmarks import __main__, packaging, tokens
from benchmarks.measure import Row
from streamgate.access.keys import SharedKey
from streamgate.native.cat import decode

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


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.needs("node", "web")
def test_the_smallest_run_of_tokens_prints_every_row(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "tokens", "--quick", "--json"]
    surroundings = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    fresh = "1 KB, fresh tokens"
    assert [row["case"] for row in rows] == ["verify a fresh token", "verify a fresh token", fresh, fresh]
    assert all(row["ours"] > 0 and row["peer_value"] > 0 for row in rows)
    # One run decides nothing. A row without a goal is None, or "undecided" where a busy machine makes it void.
    assert {row["met"] for row in rows} <= {"undecided", None}


Met = bool | Literal["undecided"] | None


@pytest.mark.parametrize(
    ("met", "arguments", "status"),
    [
        ([True, False, None], ["--check"], 1),
        ([True, False, None], ["--check", "--json"], 1),
        ([True, False, None], [], 0),
        ([True, "undecided", None], ["--check"], 0),
    ],
)
def test_check_exits_with_1_where_a_goal_is_missed(
    met: list[Met], arguments: list[str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(given: Path | None, *, runs: int, minutes: int | None) -> Iterator[Row]:
        for n, m in enumerate(met):
            yield Row("packaging", f"case {n}", "wall", "s", 1.0, "peer", 2.0, 2.0, 1.9, 2.1, 1.5, 2.0, m, runs)

    monkeypatch.setattr(packaging, "run", rows)
    done = CliRunner().invoke(__main__.main, ["packaging", *arguments], catch_exceptions=False)
    assert done.exit_code == status
    assert all(f"case {n}" in done.output for n in range(len(met)))


@pytest.mark.needs("node")
def test_tokens_are_of_the_length_that_is_said_and_all_verify_them() -> None:
    rows = list(tokens.run(runs=1, count=50))
    assert [(row.case, row.peer, row.goal) for row in rows] == [
        ("verify a fresh token", "PyPI cwt", 20),
        ("verify a fresh token", "npm @eyevinn/cat", 100),
    ]
    assert all(row.ours > 0 and row.peer_value and row.met == "undecided" for row in rows)
    made = tokens.fresh(SharedKey(b"k", bytes(32), "i", ("a",), ()), 20)
    assert {len(token) for token in made} == {226} and len(set(made)) == 20
    assert {len(decode(token)[3]) for token in made} == {5}
