"""How the benchmarks turn measurements into rows."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from benchmarks import output
from benchmarks.measure import (
    Outputs,
    Row,
    compare,
    from_disk,
    interleave,
    interval,
    pinned,
    process_cpu,
    wall,
    warm_memory,
)

KEYS = (
    "benchmark", "case", "metric", "unit", "ours", "peer", "peer_value",
    "ratio", "low", "high", "goal", "aim", "met", "runs",
)  # fmt: skip


def row(*ratios: float, goal: float | None = None) -> Row:
    return compare("b", "c", "wall", "s", "peer", [(2.0, 2.0 * r) for r in ratios], goal=goal)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(5, None), (6, (1, 6)), (8, (1, 8)), (9, (2, 8)), (10, (2, 9)), (20, (6, 15)), (50, (18, 33))],
)
def test_intervals_are_those_of_the_sign_test(count: int, expected: tuple[int, int] | None) -> None:
    """Ranks as in tables of the sign test (Conover, Practical Nonparametric Statistics, section 3.2), 95 %."""
    assert interval([float(n) for n in reversed(range(1, count + 1))]) == expected


def test_a_ratio_above_one_is_better_for_us() -> None:
    made = row(2.0, 3.0, 4.0)
    assert (made.ours, made.peer_value, made.ratio, made.runs) == (2.0, 6.0, 3.0, 3)


def test_a_ratio_is_taken_within_a_pair() -> None:
    """A machine that slows down slows both of a pair; medians of each side apart would say 1.5."""
    pairs = [(1.0, 2.0), (2.0, 4.0), (10.0, 3.0)]
    assert compare("b", "c", "wall", "s", "peer", pairs).ratio == 2.0


@pytest.mark.parametrize(
    ("ratios", "goal", "met"),
    [
        ((3.0,) * 6, 2.5, True),
        ((2.5,) * 6, 2.5, True),
        ((2.0,) * 6, 2.5, False),
        ((2.0, 3.0) * 3, 2.5, "undecided"),
        ((3.0,) * 5, 2.5, "undecided"),  # too few to say so with any confidence
        ((3.0,) * 6, None, None),
    ],
)
def test_a_goal_is_met_missed_or_undecided(ratios: tuple[float, ...], goal: float | None, met: object) -> None:
    assert row(*ratios, goal=goal).met == met


def test_pairs_are_interleaved_after_a_warm_up() -> None:
    calls: list[str] = []

    def note(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    pairs = interleave(lambda: note("ours"), lambda: note("theirs"), 3)
    assert calls == ["ours", "theirs", "ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert pairs == [(3.0, 4.0), (6.0, 5.0), (7.0, 8.0)]


def test_wall_time_is_that_of_one_call() -> None:
    calls: list[int] = []
    assert wall(lambda: calls.append(1), 4)() >= 0
    assert len(calls) == 4


def test_cpu_of_a_process_counts_its_children() -> None:
    burn = "import time\nwhile time.process_time() < 0.1: pass"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}], check=True)"
    assert process_cpu([sys.executable, "-c", nested]) >= 0.1


def test_a_process_gets_its_core_and_environment() -> None:
    core = min(os.sched_getaffinity(0))
    check = f"import os; assert os.sched_getaffinity(0) == {{{core}}} and os.environ['WANTED'] == 'yes'"
    assert process_cpu([sys.executable, "-c", check], core=core, environment={"WANTED": "yes"}) > 0


def test_a_process_that_fails_is_no_measurement() -> None:
    with pytest.raises(RuntimeError, match=r"failed \(3\): no such luck"):
        process_cpu([sys.executable, "-c", "import sys; sys.stderr.write('no such luck'); sys.exit(3)"])


def test_pinning_is_undone() -> None:
    before = os.sched_getaffinity(0)
    with pinned(max(before)):
        assert os.sched_getaffinity(0) == {max(before)}
    assert os.sched_getaffinity(0) == before


def test_outputs_are_emptied_but_their_files_stay(tmp_path: Path) -> None:
    outputs = Outputs(tmp_path)
    first = outputs.fresh()
    (first / "deep").mkdir()
    (first / "deep" / "file").write_bytes(b"12345")
    second = outputs.fresh()
    assert second != first
    assert not list(second.iterdir())
    assert (first / "deep" / "file").stat().st_size == 0


def test_warmed_memory_is_given_back() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    before = resident()
    warm_memory(32 << 20)
    assert resident() < before + (16 << 20)


def test_a_file_is_read_to_its_end_and_left_as_it_is(tmp_path: Path) -> None:
    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    path = tmp_path / "title"
    content = os.urandom(3_000_001)
    path.write_bytes(content)
    before = bytes_read()
    from_disk(path)
    assert bytes_read() - before >= len(content)
    assert path.read_bytes() == content


def test_rows_are_one_json_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row(3.0, goal=2.5), row(*(3.0,) * 6, goal=2.5)]
    assert output.print_json(rows) == rows
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [tuple(line) for line in lines] == [KEYS, KEYS]
    assert [line["met"] for line in lines] == ["undecided", True]
    assert (lines[0]["low"], lines[1]["low"]) == (None, 3.0)


def test_rows_are_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table([row(*(2.0, 3.0) * 3, goal=2.5), row(3.0)])
    shown = capsys.readouterr().out
    assert "undecided" in shown
    assert "2 to 3" in shown
