"""Serves the demo clip, or the file that VIDEO names, on PORT: ``python tools/demo.py SINCE``.

SINCE (Unix time) is when the user asked; the time from then until the server answers is printed. A signal that reaches both
``make`` and this process (Ctrl-C, or a kill of the group) comes here twice; the server, in a group of its own, gets it once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from streamgate.errors import StreamGateError

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "var"
CLIP = DATA / "media" / "demo"
POLL_S = 0.05
ONE_SIGNAL_S = 0.5
PIECE = 65536  # bytes: as much as a pipe holds


def wait_until_ready(server: subprocess.Popen[bytes], port: str) -> bool:
    """Whether the server came up; it is not waited for beyond its death."""
    while server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=1):
                return True
        except OSError:
            time.sleep(POLL_S)
    return False


class Signals:
    """Passes the first SIGINT or SIGTERM on to the server as SIGTERM, and one that comes clearly later as well."""

    def __init__(self) -> None:
        self.server: subprocess.Popen[bytes] | None = None
        self.last = 0.0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self)

    def __call__(self, number: int, frame: object) -> None:
        if self.server is None:
            sys.exit(0)
        if time.monotonic() - self.last > ONE_SIGNAL_S:
            self.last = time.monotonic()
            self.server.terminate()


def main(since: float) -> int:
    """Make the clip where it is missing, serve, and wait for the end."""
    signals = Signals()
    port = os.environ.get("PORT") or "8080"
    video = os.environ.get("VIDEO")
    path = Path(video).expanduser() if video else CLIP
    if not video and not CLIP.exists():
        from streamgate.transcode.clip import make_clip

        print("Making the demo clip", flush=True)
        make_clip(CLIP)
    quiet = {"STREAMGATE__LOG__LEVEL": "warning", "STREAMGATE__LOG__ACCESS": "false"}
    defaults = {"STREAMGATE__SERVER__DATA": str(DATA / "data"), **quiet}
    command = [str(Path(sys.executable).with_name("streamgate")), "serve", str(path), "--port", port]
    surroundings = {**defaults, **os.environ}
    server = signals.server = subprocess.Popen(command, env=surroundings, stdout=subprocess.PIPE, process_group=0)
    assert server.stdout is not None
    said = server.stdout.fileno()
    show(os.read(said, PIECE))  # its addresses, which it writes at once; nothing where it died
    if wait_until_ready(server, port):
        show(f"Ready after {time.time() - since:.1f} s. Ctrl-C stops it.\n".encode())
    while more := os.read(said, PIECE):
        show(more)
    return server.wait()


def show(said: bytes) -> None:
    """Pass bytes on to the standard output; that nobody reads it is no reason to stop."""
    with contextlib.suppress(OSError):
        os.write(1, said)


if __name__ == "__main__":
    try:
        sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else time.time()))
    except StreamGateError as error:
        sys.exit(f"error: {error.detail} [{error.code}]")
