"""GStreamer's own programs: gst-launch for whole pipelines, and gst-play, whose keys are pressed through a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.conftest import find_program
from tests.players.test_programs import DEADLINE_S, run

COMPLAINTS = r"WARN|ERROR|CRITICAL"
UNSYNCED = "fakesink sync=false"
FLAGS = 0x13  # playbin's: video, audio, and a volume of its own


def launch(url: str, *options: str, picture: str = UNSYNCED, text: str = UNSYNCED) -> None:
    """Play ``url`` to its end as fast as it goes; GStreamer must neither fail nor warn."""
    sinks = (f"video-sink={picture}", f"audio-sink={UNSYNCED}", f"text-sink={text}")
    done = run("gst-launch-1.0", "playbin3", f"uri={url}", *options, *sinks)
    told = (done.stdout + done.stderr).decode()
    assert "Got EOS" in told, told
    assert not re.search(COMPLAINTS, told), told


@dataclass
class Terminal:
    """What a running gst-play prints, and its keyboard."""

    fd: int
    told: str = field(default="")
    seen: int = 0

    def press(self, key: str) -> None:
        os.write(self.fd, key.encode())

    def until(self, pattern: str) -> re.Match[str]:
        """Wait until ``pattern`` is printed, behind what was waited for before."""
        deadline = time.monotonic() + DEADLINE_S
        while not (found := re.search(pattern, self.told[self.seen :])):
            readable, _, _ = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))
            assert readable, f"never {pattern}: {self.told[-2000:]}"
            try:
                self.told += os.read(self.fd, 1 << 16).decode(errors="replace")
            except OSError as e:  # EIO: the program has ended
                raise AssertionError(f"it ended without {pattern}: {self.told[-2000:]}") from e
        self.seen += found.end()
        return found


@contextmanager
def playing(url: str, *options: str, picture: str = UNSYNCED, sound: str = UNSYNCED) -> Iterator[Terminal]:
    """gst-play in a terminal of its own; afterwards it must have come to the end without a warning."""
    program = find_program("gst-play-1.0")
    assert program
    command = [
        program, "--use-playbin3", f"--flags={FLAGS}", f"--videosink={picture}", f"--audiosink={sound}", *options, url,
    ]  # fmt: skip
    ours, theirs = pty.openpty()
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "TERM": "dumb"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        terminal = Terminal(ours)
        try:
            yield terminal
            terminal.until("Reached end of play list")
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()
            os.close(ours)
    assert not re.search(COMPLAINTS, terminal.told), terminal.told
