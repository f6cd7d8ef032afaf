"""What a program may not import: start-up time and memory are part of the contract."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from streamgate.transcode.clip import write_video
from tests.conftest import ROOT

ADAPTERS = {"aioboto3", "boto3", "botocore", "redis", "nats", "sqlalchemy", "alembic", "eth_account", "web3", "grpc"}
FRAMEWORKS = {"aiohttp", "uvloop", "pydantic", "pydantic_settings", "structlog", "prometheus_client", "asyncio"}

REPORT = "import sys; sys.stderr.write('MODULES ' + ' '.join({m.partition('.')[0] for m in sys.modules}))"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weight") / "clip.mp4"
    write_video(path, 64, 36, crf=40, seconds=4)
    return path


def imported_by(*arguments: str) -> set[str]:
    """The top-level modules that are in memory when ``streamgate ARGUMENTS`` ends."""
    code = f"""
import atexit, sys
atexit.register(lambda: exec({REPORT!r}))
sys.argv = ['streamgate', *{arguments!r}]
from streamgate.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.rpartition("MODULES ")[2].split())


def test_inspect(clip: Path) -> None:
    loaded = imported_by("inspect", "--json", str(clip))
    assert "numpy" in loaded  # the report itself works
    assert not loaded & (ADAPTERS | FRAMEWORKS | {"av", "edge"})


def test_package(clip: Path, tmp_path: Path) -> None:
    loaded = imported_by("package", "--quiet", str(clip), str(tmp_path / "out"))
    assert (tmp_path / "out" / "main.m3u8").exists()
    assert not loaded & (ADAPTERS | FRAMEWORKS | {"av", "edge", "rich"})


def test_edge_on_embedded_defaults() -> None:
    code = f"import edge.server; {REPORT}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stderr.rpartition("MODULES ")[2].split())
    assert "aiohttp" in loaded
    # structlog takes rich where it is installed, and so it is not held against the edge.
    assert not loaded & (ADAPTERS | {"av", "click"})
