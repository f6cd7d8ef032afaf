"""Commands of others that cannot hang a run: each has a deadline, and what it leaves behind goes with it.

Root's commands get mount and process namespaces of their own: when the first process is killed, the kernel kills all the
others, whatever session they made for themselves, and takes their mounts away. Output goes to files, for a pipe that a lost
process holds open would be read for ever; and what even SIGKILL does not end is not waited for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.conftest import ROOT

_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_REAPED_S = 10
_POLL_S = 0.05
_TOLD = 4000  # characters of a failed command's output


class Running:
    """A command on its way: ``said()`` is what it has printed, ``wait`` gives its status, ``end`` kills what there is.

    ``environment`` is all that it gets, this process's own where it is None; ``output`` is a file that it writes by itself
    instead of to its standard output.
    """

    def __init__(
        self, command: tuple[str | Path, ...], cwd: Path, environment: Mapping[str, str] | None, output: Path | None
    ) -> None:
        self.command = [str(part) for part in command]
        self._files = contextlib.ExitStack()
        self._output = output
        self._out, self._err = (self._files.enter_context(tempfile.TemporaryFile()) for _ in range(2))
        self.process = subprocess.Popen(
            [*(_NAMESPACES if os.geteuid() == 0 else ()), *self.command], cwd=cwd, env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=self._out, stderr=self._err,
        )  # fmt: skip

    def said(self, *, errors: bool = False) -> str:
        if self._output is not None and not errors:
            return self._output.read_text(errors="replace") if self._output.exists() else ""
        file = self._err if errors else self._out
        return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")

    def wait(self, seconds: float) -> int:
        """Its exit status; AssertionError with what each of its processes is doing where ``seconds`` do not suffice."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                self.told(f"not done in {seconds:g} s", *map(doing, family(self.process.pid)))
            ) from None

    def line(self, start: str, seconds: float) -> str:
        """The first line that begins with ``start``; AssertionError where it does not come in time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            found = [line for line in self.said().splitlines(keepends=True) if line.startswith(start)]
            if found and found[0].endswith("\n"):
                return found[0]
            time.sleep(_POLL_S)
        raise AssertionError(self.told(f"no line {start!r} in {seconds:g} s", *map(doing, family(self.process.pid))))

    def told(self, *what: str) -> str:
        """An account of a failure."""
        return "\n".join([" ".join(self.command), *what, self.said()[-_TOLD:], self.said(errors=True)[-_TOLD:]])

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_REAPED_S)
        self._files.close()


@contextlib.contextmanager
def started(
    *command: str | Path, cwd: Path = ROOT, environment: Mapping[str, str] | None = None, output: Path | None = None
) -> Iterator[Running]:
    """``command`` while the block runs."""
    running = Running(command, cwd, environment, output)
    try:
        yield running
    finally:
        running.end()


def run(
    *command: str | Path,
    seconds: float,
    cwd: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    output: Path | None = None,
) -> str:
    """What ``command`` prints; AssertionError where it fails or is not done in ``seconds``."""
    with started(*command, cwd=cwd, environment=environment, output=output) as running:
        status = running.wait(seconds)
        assert status == 0, running.told(f"exit status {status}")
        return running.said()


def family(pid: int) -> list[int]:
    """``pid`` and its descendants, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it may have ended meanwhile
            children.setdefault(int(entry.read_text().rpartition(")")[2].split()[1]), []).append(int(entry.parent.name))
    found = [pid]
    for one in found:
        found += sorted(children.get(one, []))
    return found


def doing(pid: int) -> str:
    """One line of what process ``pid`` is and what it waits for."""
    parts = []
    for name in ("comm", "wchan", "syscall", "stack"):
        with contextlib.suppress(OSError):
            parts.append(f"{name} {' '.join(Path(f'/proc/{pid}/{name}').read_text().split())}")
    with contextlib.suppress(OSError):
        parts += [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("State")]
    return f"{pid}: {', '.join(parts)}"
