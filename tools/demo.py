"""Serves the demo clip, or the file that VIDEO names, on PORT: ``python tools/demo.py SINCE``.

SINCE (Unix time) is when the user asked; the time from then until the server answers is printed. The server then takes the place of
this process, so that signals reach it.
"""

from __future__ import annotations

import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from streamgate.errors import StreamGateError

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "var"
CLIP = DATA / "media" / "demo"
POLL_S = 0.05


def tell_when_ready(port: str, since: float) -> None:
    """Fork a child that waits until the server (this process, later) is ready and says how long that took."""
    server = os.getpid()
    if os.fork():
        os.wait()
        return
    if os.fork():  # the server must not have a child that it knows nothing of
        os._exit(0)
    health = f"http://127.0.0.1:{port}/health/ready"
    while True:
        try:
            os.kill(server, 0)
            with urllib.request.urlopen(health, timeout=1):
                break
        except ProcessLookupError:
            os._exit(0)
        except (urllib.error.URLError, OSError):
            time.sleep(POLL_S)
    time.sleep(POLL_S)  # after the server's own lines
    print(f"Ready after {time.time() - since:.1f} s. Ctrl-C stops it.", flush=True)
    os._exit(0)


def main(since: float) -> None:
    """Make the clip where it is missing, and become the server."""
    port = os.environ.get("PORT") or "8080"
    video = os.environ.get("VIDEO")
    path = Path(video).expanduser() if video else CLIP
    if not video and not CLIP.exists():
        from streamgate.transcode.clip import make_clip

        print("Making the demo clip", flush=True)
        make_clip(CLIP)
    os.environ.setdefault("STREAMGATE__SERVER__DATA", str(DATA / "data"))
    tell_when_ready(port, since)
    os.execv(ROOT / ".venv/bin/streamgate", ["streamgate", "serve", str(path), "--port", port])


if __name__ == "__main__":
    try:
        main(float(sys.argv[1]) if len(sys.argv) > 1 else time.time())
    except StreamGateError as error:
        sys.exit(f"error: {error.detail} [{error.code}]")
    except KeyboardInterrupt:
        sys.exit(0)
