"""``docs/operations/faults.md`` names each scenario, and each scenario is there."""

from __future__ import annotations

import ast
import re

from tests.conftest import ROOT

FOLDER = ROOT / "tests/faults"
TABLE = ROOT / "docs/operations/faults.md"
# Files of one fault of a site each; the others here are of one part of a node.
SCENARIOS = ("test_origin_*.py", "test_redis_*.py", "test_site_killed.py", "test_clock*.py")


def test_the_table_and_the_scenarios_name_each_other() -> None:
    rows = [line.strip("| ").split("|") for line in TABLE.read_text().splitlines() if line.startswith("| ")][1:]
    named = [re.findall(r"`(test_\w+\.py)`", cells[-1]) for cells in rows]
    assert all(len(cells) == 3 and all(cell.strip() for cell in cells) for cells in rows)
    assert all(len(files) == 1 for files in named), "one file a row"
    there = sorted(path.name for pattern in SCENARIOS for path in FOLDER.glob(pattern))
    assert sorted(file for files in named for file in files) == there


def test_each_scenario_tells_a_story() -> None:
    """It says what breaks and what is seen, in its first lines, and has tests."""
    for pattern in SCENARIOS:
        for path in FOLDER.glob(pattern):
            parsed = ast.parse(path.read_text())
            assert len(ast.get_docstring(parsed) or "") > 40, path
            assert any(
                isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name.startswith("test_")
                for each in parsed.body
            ), path
