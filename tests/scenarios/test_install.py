"""What a user of the package gets: sdist, wheel, an empty environment without extras, another folder."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest

from streamgate.transcode.clip import write_video
from tests.conftest import ROOT
from tests.scenarios import tree

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """What ``command`` prints; it must succeed."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources without anything that was built here, except the pages."""
    source, out = tmp_path_factory.mktemp("source") / "streamgate", tmp_path_factory.mktemp("dist")
    tree.copy(source, pages=True)
    code = f"import setuptools.build_meta as b; b.build_sdist({str(out)!r})"
    run(sys.executable, "-c", code, cwd=source)
    (built,) = out.glob("*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", out, sdist, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of an environment that holds the wheel and what it needs, no extras."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=True)
    pip = (home / "bin/python", "-m", "pip", "install", "--quiet", "--quiet", "--disable-pip-version-check")
    run(*pip, "-c", ROOT / "constraints.txt", wheel, cwd=home)
    return home / "bin"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder that is not the project's, with a clip."""
    write_video(tmp_path / "clip.mp4", 128, 72, crf=35, seconds=6)
    return tmp_path


def test_sdist_holds_all_sources_and_nothing_built(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    native = {str(p.relative_to(ROOT)) for p in (ROOT / "native").iterdir() if p.suffix in (".pyx", ".h")}
    interface = {str(p.relative_to(ROOT)) for s in ("pxd", "pyi") for p in (ROOT / "streamgate/native").glob(f"*.{s}")}
    assert native | interface | {"setup.py", "pyproject.toml", "LICENSE", "streamgate/py.typed"} <= names
    assert not [name for name in names if re.search(r"\.(so|pyc)$|node_modules", name)]


def test_wheel_holds_the_packages_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {"streamgate", "edge"}
    kernels = {p.stem for p in (ROOT / "native").glob("*.pyx")}
    assert kernels <= {Path(name).name.partition(".")[0] for name in names if name.endswith(".so")}
    if (ROOT / "streamgate/web").is_dir():
        assert "streamgate/web/index.html" in names


def test_inspect(programs: Path, elsewhere: Path) -> None:
    told = json.loads(run(programs / "streamgate", "inspect", "--json", "clip.mp4", cwd=elsewhere))
    assert "avc1" in json.dumps(told)
    assert "clip.mp4" in run(programs / "streamgate", "inspect", "clip.mp4", cwd=elsewhere)


def test_config_is_complete_without_the_project(programs: Path, elsewhere: Path) -> None:
    shown = run(programs / "streamgate", "config", "--default", cwd=elsewhere)
    assert shown == (ROOT / "config/streamgate.toml").read_text()


def test_package(programs: Path, elsewhere: Path) -> None:
    run(programs / "streamgate", "package", "--quiet", "clip.mp4", "out", cwd=elsewhere)
    assert (elsewhere / "out/main.mpd").exists()


def test_serves_a_segment(programs: Path, elsewhere: Path) -> None:
    command = [str(programs / "streamgate"), "serve", "clip.mp4", "--port", "0"]
    with subprocess.Popen(command, cwd=elsewhere, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            address = next(line.split()[1] for line in server.stdout if line.startswith("HLS"))
            base = address.rpartition("/")[0]
            playlist = get(address).decode()
            rendition = next(line for line in playlist.splitlines() if line.endswith("/index.m3u8"))
            media = get(f"{base}/{rendition}").decode()
            segment = next(line for line in media.splitlines() if line.endswith(".m4s"))
            body = get(f"{base}/{rendition.partition('/')[0]}/{segment}")
            assert body[4:8] == b"styp"
            assert b"moof" in body[:200]
        finally:
            server.terminate()
        assert server.wait(30) == 0


def get(url: str) -> bytes:
    """The body of a 200."""
    with urllib.request.urlopen(url, timeout=30) as response:
        assert response.status == 200
        return bytes(response.read())
