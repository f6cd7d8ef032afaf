"""What a program may not import: start-up time and memory are part of the contract."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urljoin
from urllib.request import urlopen

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


HOOK = """
import atexit, os, sys
def report():
    modules = " ".join({name.partition(".")[0] for name in sys.modules})
    with open(os.path.join(os.environ["REPORTS"], str(os.getpid())), "w") as file:
        file.write(modules)
atexit.register(report)
"""


def fetch(url: str) -> bytes:
    with urlopen(url, timeout=20) as response:
        return bytes(response.read())


def test_an_edge_that_has_served_a_segment(clip: Path, tmp_path: Path) -> None:
    """On embedded defaults; every process of the server writes down what it has imported when it ends."""
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    reports = tmp_path / "reports"
    reports.mkdir()
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("STREAMGATE__")}
    surroundings |= {
        "PYTHONPATH": str(tmp_path),
        "REPORTS": str(reports),
        "STREAMGATE__SERVER__DATA": str(tmp_path / "data"),
    }
    code = f"import sys; sys.argv = ['streamgate', 'serve', {str(clip)!r}, '--port', '0']; from streamgate.cli import main; main()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, env=surroundings, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = next(line.split()[1] for line in server.stdout if line.startswith("HLS"))
            rendition = next(line for line in fetch(address).decode().splitlines() if line.endswith("/index.m3u8"))
            media = urljoin(address, rendition)
            segment = next(line for line in fetch(media).decode().splitlines() if line.endswith(".m4s"))
            assert fetch(urljoin(media, segment))[4:8] == b"styp"
        finally:
            server.terminate()
        assert server.wait(30) == 0
    loaded = {int(path.name): set(path.read_text().split()) for path in reports.iterdir()}
    serving = {pid: modules for pid, modules in loaded.items() if "aiohttp" in modules}
    assert serving
    for pid, modules in loaded.items():
        assert not modules & (ADAPTERS | {"av", "rich"})
        assert ("click" if pid != server.pid else "numpy") not in modules  # who serves, and who starts those
