"""tests/conftest.py keeps its word: no skip but "no GPU", and what was left out is told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def run(folder: Path, source: str) -> tuple[int, str]:
    """Exit status and output of a run over one test module under the project's conftest."""
    shutil.copy(ROOT / "tests/conftest.py", folder)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow: s\n    needs(*tools): n\n")
    (folder / "test_it.py").write_text(f"import pytest\n{source}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    paths = {**os.environ, "PYTHONPATH": str(ROOT)}  # the fixtures that it names lie there
    done = subprocess.run(command, cwd=folder, env=paths, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    "source",
    [
        "def test_a(): pytest.skip('too tired')",
        "@pytest.mark.skip(reason='later')\ndef test_a(): pass",
        "@pytest.mark.skipif(True, reason='not today')\ndef test_a(): pass",
        "def test_b(): pass\npytest.skip('all of it', allow_module_level=True)",
    ],
    ids=["call", "mark", "condition", "module"],
)
def test_a_skip_fails_the_run(source: str, tmp_path: Path) -> None:
    status, told = run(tmp_path, source + "\ndef test_c(): pass\n")
    assert status != 0
    assert "FORBIDDEN" in told


def test_no_gpu_is_a_reason(tmp_path: Path) -> None:
    status, told = run(tmp_path, "def test_a(): pytest.skip('no GPU')\ndef test_b(): pass\n")
    assert status == 0
    assert "no GPU" in told


def test_a_test_of_nothing_is_told_and_not_a_skip(tmp_path: Path) -> None:
    source = "@pytest.mark.parametrize('x', [])\ndef test_a(x): assert False\ndef test_b(): pass\n"
    status, told = run(tmp_path, source)
    assert status == 0
    assert "1 tests: nothing to run on" in told


def test_a_missing_program_is_told_and_not_a_skip(tmp_path: Path) -> None:
    source = "@pytest.mark.needs('no-such-program')\ndef test_a(): assert False\ndef test_b(): pass\n"
    status, told = run(tmp_path, source)
    assert status == 0
    assert "1 tests: no-such-program is not installed" in told
    assert "test_it.py::test_a" in told
    assert "1 passed, 1 deselected" in told
