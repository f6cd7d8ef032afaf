"""The floors of the house: who may import whom, and what the sans-IO rooms may not touch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, find_program

PURE = ("native", "media", "access")
FOREIGN = {"asyncio", "aiohttp", "pydantic", "pydantic_settings", "av", "uvloop", "structlog", "socket", "ssl"}
FORBIDDEN_CALLS = {
    "open", "io.open", "os.open", "time.time", "time.monotonic", "datetime.now", "datetime.utcnow", "datetime.today",
    "datetime.datetime.now", "date.today", "datetime.date.today",
}  # fmt: skip


def modules(room: str) -> list[str]:
    """Every importable module of a room; of the kernels, those that were built."""
    folder = ROOT / "streamgate" / room
    files = [path for suffix in ("*.py", "*.so") for path in folder.rglob(suffix)]
    names = {
        ".".join((*path.relative_to(ROOT).parts[:-1], path.name.partition(".")[0])).removesuffix(".__init__")
        for path in files
    }
    return sorted(names)


ALONE = [module for room in PURE for module in modules(room)]


def test_every_room_is_covered() -> None:
    assert "streamgate.native.isobmff" in ALONE
    assert "streamgate.media.hls" in ALONE


@pytest.mark.timeout(120)
def test_imports_go_strictly_downward() -> None:
    linter = find_program("lint-imports")
    assert linter is not None, "import-linter is part of the test extra"
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", ALONE)
def test_module_imports_alone(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not FOREIGN & set(done.stdout.split())


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of an attribute chain, empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (head := dotted(node.value)):
        return f"{head}.{node.attr}"
    return ""


def impurities(source: str) -> list[str]:
    """What a module does that a sans-IO module must not: files, clocks, chance."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and dotted(node.func) in FORBIDDEN_CALLS:
            found.append(f"line {node.lineno}: {dotted(node.func)}()")
        elif isinstance(node, ast.Import):
            found += [f"line {node.lineno}: {a.name}" for a in node.names if a.name in ("random", "secrets", "time")]
        elif isinstance(node, ast.ImportFrom) and node.module in ("random", "secrets", "time"):
            found.append(f"line {node.lineno}: {node.module}")
    return found


SOURCES = sorted(path for room in PURE[1:] for path in (ROOT / "streamgate" / room).rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sans_io_module_touches_no_file_clock_or_chance(path: Path) -> None:
    assert impurities(path.read_text()) == []


@pytest.mark.parametrize(
    "source", ["open('x')", "import time\n", "from random import choice", "import datetime\ndatetime.datetime.now()"]
)
def test_the_walk_sees(source: str) -> None:
    assert impurities(source)
