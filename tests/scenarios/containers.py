"""Containers by buildah, without an engine, a daemon or a registry; and a probe of whether they can be made here."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

from tests.scenarios.bounded import Running, family, run, started

_USER = 10001
_STEP_S = 20


class Store:
    """buildah with a store of its own below ``home``; each method raises AssertionError for what fails or overruns.

    Its layers are plain folders (vfs), and its containers run in a chroot.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "tmp").mkdir(parents=True)
        self._buildah = ("buildah", "--root", home / "root", "--runroot", home / "run", "--storage-driver", "vfs")
        self._environment = {**os.environ, "TMPDIR": str(home / "tmp")}

    def __call__(self, *arguments: str | Path, seconds: float) -> str:
        return run(*self._buildah, *arguments, seconds=seconds, environment=self._environment).strip()

    def build(self, context: Path, tag: str, *arguments: str, seconds: float) -> None:
        """Image ``tag`` by the Dockerfile of ``context``."""
        self("build", "--isolation", "chroot", *arguments, "--tag", tag, context, seconds=seconds)

    def start(self, container: str, *command: str, volume: str = "") -> AbstractContextManager[Running]:
        """``command`` in ``container`` while the block runs.

        It writes its output into a shared folder itself: of what buildah passes on the end is lost now and then.
        """
        told = Path(tempfile.mkdtemp(prefix="told-", dir=self.home))
        told.chmod(0o777)
        volumes = ("--volume", f"{told}:/told", *(("--volume", volume) if volume else ()))
        inside = ("sh", "-c", 'exec "$@" > /told/out', "sh", *command)
        start = (*self._buildah, "run", "--isolation", "chroot", *volumes, container, "--", *inside)
        return started(*start, environment=self._environment, output=told / "out")

    def run(self, container: str, *command: str, seconds: float, volume: str = "") -> str:
        """What ``command`` prints in ``container``."""
        with self.start(container, *command, volume=volume) as running:
            status = running.wait(seconds)
            assert status == 0, running.told(f"exit status {status}")
            return running.said()

    def remove(self) -> None:
        """Layers are folders, and what was mounted has gone with its command."""
        run("rm", "-rf", "--one-file-system", self.home, seconds=180)


def stop(running: Running, user: int = _USER) -> int:
    """The status of a container whose first process of ``user`` is asked to end, as an engine does it."""
    theirs = (pid for pid in family(running.process.pid) if os.stat(f"/proc/{pid}").st_uid == user)
    # buildah's own last process has become that user too, and waits for the container's first.
    first = next(pid for pid in theirs if "buildah" not in Path(f"/proc/{pid}/exe").readlink().name)
    os.kill(first, signal.SIGTERM)
    return running.wait(30)


def why_not() -> str | None:
    """Why containers cannot be made and run here, or None; takes a few seconds, and less than two minutes in any case."""
    if os.geteuid() != 0:
        return "containers cannot be run here: only root may mount"
    if lacking := [name for name in ("buildah", "unshare") if not shutil.which(name)]:
        return f"{lacking[0]} is not installed"
    with tempfile.TemporaryDirectory(prefix="streamgate-probe-", ignore_cleanup_errors=True) as folder:
        try:
            _try_all(Path(folder))
        except (AssertionError, OSError, StopIteration, subprocess.SubprocessError) as error:
            return f"containers cannot be run here: {' | '.join(str(error).split(chr(10)))[:2000]}"
    return None


def _try_all(folder: Path) -> None:
    """A tiny image of this machine's own programs is built, run as its user, and a process in it stopped."""
    context = folder / "context"
    for name in ("sh", "id", "sleep"):
        program = shutil.which(name)
        assert program, name
        told = subprocess.run(["ldd", program], capture_output=True, text=True, timeout=_STEP_S, check=True).stdout
        for path in (program, *re.findall(r"(/\S+) \(0x", told)):
            target = context / "root" / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        (context / "root/bin").mkdir(exist_ok=True)
        if not (context / "root/bin" / name).exists():
            shutil.copy(program, context / "root/bin" / name)
    (context / "Dockerfile").write_text(f"FROM scratch\nADD root /\nRUN true\nUSER {_USER}\n")
    store = Store(folder / "store")
    store.build(context, "probe", seconds=_STEP_S)
    container = store("from", "localhost/probe", seconds=_STEP_S)
    assert store.run(container, "id", "-u", seconds=_STEP_S).strip() == str(_USER)
    with store.start(container, "sh", "-c", "echo begun; exec sleep 1000") as running:
        running.line("begun", _STEP_S)
        assert stop(running) != 0
