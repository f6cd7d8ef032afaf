"""A fresh clone in the hands of a user who isn't root: `make demo` once and again, and `make test` where programs are missing."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import av
import pytest

from streamgate.transcode import clip
from tests.media_factory import moment
from tests.scenarios import other_user, tree
from tests.scenarios.bounded import family, run, started

pytestmark = [pytest.mark.slow, pytest.mark.needs("make", "other-user"), pytest.mark.timeout(840)]

FIRST_S, SECOND_S = 300, 10
# What such a user may have to do without; apt's own database is hidden too, and says nothing of what is there.
HIDDEN = re.compile(r"(ff(mpeg|probe)|chrom.*|gst-.*|buildah|debootstrap|dpkg-query|apt-get|ts(report|info))$")


@dataclass
class Clone:
    """A fresh clone and its user's environment."""

    folder: Path
    environment: Mapping[str, str]

    def command(self, *make: str) -> tuple[str, ...]:
        python = other_user.python()
        assert python is not None
        return other_user.as_other("make", "--no-print-directory", f"PYTHON={python}", *make)


@pytest.fixture(scope="module")
def clone() -> Iterator[Clone]:
    """Not below pytest's own folder, which nobody else may enter."""
    home = Path(tempfile.mkdtemp(prefix="streamgate-clone-"))
    home.chmod(0o755)
    programs = home / "bin"
    programs.mkdir()
    for folder in ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin"):
        for program in Path(folder).iterdir() if Path(folder).is_dir() else ():
            if not HIDDEN.match(program.name) and not (programs / program.name).is_symlink():
                (programs / program.name).symlink_to(program)
    tree.copy(home / "streamgate")
    other_user.give(home)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("STREAMGATE", "PYTHON", "PYTEST", "VIRTUAL"))
    }
    yield Clone(home / "streamgate", {**kept, "HOME": str(home), "PATH": str(programs), "USER": "nobody"})
    subprocess.run(["rm", "-rf", "--one-file-system", home], check=False, timeout=120)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(clone: Clone, limit: float) -> tuple[float, str]:
    """How long `make demo` takes until it is ready, by our clock, and what it prints until it has ended on SIGTERM."""
    port = free_port()
    began = time.monotonic()
    with started(
        *clone.command("demo"), cwd=clone.folder, environment={**clone.environment, "PORT": str(port)}
    ) as demo:
        demo.line("Ready after", limit)
        took = time.monotonic() - began
        with socket.create_connection(("127.0.0.1", port), 10):
            pass
        # What a terminal does on Ctrl-C, and a supervisor on stopping: everyone in the group is told.
        for pid in family(demo.process.pid)[1:]:
            if b"tools/demo.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGTERM)
        assert demo.wait(30) == 0, demo.told("did not end cleanly")
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
        return took, demo.said()


@pytest.fixture(scope="module")
def started_once(clone: Clone) -> tuple[float, str]:
    """All that needs the clone prepared comes after the first start."""
    return start(clone, FIRST_S)


def test_demo_starts_once_and_again(
    clone: Clone, started_once: tuple[float, str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, said = started_once
    assert [line.split()[0] for line in said.splitlines()[-4:-1]] == ["Watch", "HLS", "DASH"]
    second, again = start(clone, SECOND_S)
    assert [line.split()[0] for line in again.splitlines()] == ["Watch", "HLS", "DASH", "Ready"]
    told = [float(re.search(r"Ready after (\S+) s", text)[1]) for text in (said, again)]  # type: ignore[index]
    assert told == [pytest.approx(first, abs=2), pytest.approx(second, abs=2)]
    with capsys.disabled():
        print(f"\nmake demo: first start {first:.0f} s, second {second:.1f} s")


@pytest.mark.usefixtures("started_once")
def test_the_clip_has_its_three_rungs(clone: Clone) -> None:
    """The clip that the first start made: nothing is scaled down here."""
    folder = clone.folder / "var/media/demo"
    told = tomllib.loads((folder / "asset.toml").read_text())
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        ["asset.toml", *(part["file"] for part in (*told["source"], *told["subtitle"]))]
    )
    keys = []
    for width, height, _ in clip.RUNGS:
        with av.open(str(folder / f"v{height}.mp4")) as source:
            video = source.streams.video[0]
            assert (video.width, video.height) == (width, height)
            assert video.average_rate == clip.FPS
            keys.append([moment(packet) for packet in source.demux(video) if packet.size and packet.is_keyframe])
    assert len(keys[0]) > 10
    assert keys == [keys[0]] * len(clip.RUNGS)


@pytest.mark.usefixtures("started_once")
def test_tests_run_without_root_and_tell_what_did_not(clone: Clone) -> None:
    command = clone.command("test", "ARGS=-k 'test_skip_policy or test_everyday or test_tools'")
    said = run(*command, seconds=480, cwd=clone.folder, environment=clone.environment)
    assert re.search(r"^Missing: .*chromium.*\(apt-get install", said, re.MULTILINE)
    rest = said.partition("= not run =")[2]
    assert re.search(r"^\d+ tests: chromium is not installed$", rest, re.MULTILINE)
    assert re.search(r"^=+ \d+ passed", said, re.MULTILINE)


@pytest.mark.usefixtures("started_once")
def test_a_kernel_is_rebuilt_when_its_source_is_newer(clone: Clone) -> None:
    kernels = {path: path.stat().st_mtime_ns for path in (clone.folder / "streamgate/native").glob("*.so")}
    source = min((clone.folder / "native").glob("*.pyx"), key=lambda path: path.stat().st_size)
    os.utime(source)
    run(*clone.command("native"), seconds=200, cwd=clone.folder, environment=clone.environment)
    changed = {path.name.partition(".")[0] for path, before in kernels.items() if path.stat().st_mtime_ns > before}
    assert changed == {source.stem}


@pytest.mark.usefixtures("started_once")
def test_versions_are_locked_anew(clone: Clone) -> None:
    """Last, for what is locked anew would be installed anew."""
    before = (clone.folder / "constraints.txt").read_text()
    said = run(*clone.command("lock"), seconds=400, cwd=clone.folder, environment=clone.environment)
    lines = (clone.folder / "constraints.txt").read_text().splitlines()
    assert said.splitlines()[-1] == f"{len(lines) - 1} packages"
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9A-Za-z.+!-]+", line) for line in lines[1:])
    names = {line.partition("==")[0] for line in lines[1:]}
    direct = tomllib.loads((clone.folder / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.split(r"[=<>]", need)[0] for need in direct} <= names
    assert lines[0] == before.splitlines()[0]
