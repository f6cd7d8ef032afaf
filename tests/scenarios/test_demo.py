"""``tools/demo.py`` as ``make demo`` starts it: what it prints, that it serves, and how a signal ends it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from streamgate.transcode.clip import write_video
from tests.conftest import ROOT

DEMO = ROOT / "tools/demo.py"


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def surroundings(folder: Path, port: str, video: Path) -> dict[str, str]:
    return {**os.environ, "PORT": port, "VIDEO": str(video), "STREAMGATE__SERVER__DATA": str(folder / "data")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_shows_its_addresses_serves_and_ends(number: signal.Signals, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", 128, 72, crf=35, seconds=6)
    port = free_port()
    environment = surroundings(tmp_path, port, tmp_path / "clip.mp4")
    with subprocess.Popen(
        [sys.executable, DEMO], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        try:
            assert demo.stdout is not None
            said = []
            for line in demo.stdout:
                said.append(line)
                if line.startswith("Ready after"):
                    break
            addresses = dict(line.split() for line in said[:-1])
            assert list(addresses) == ["Watch", "HLS", "DASH"], said
            assert all(address.startswith(f"http://127.0.0.1:{port}/") for address in addresses.values())
            for name, start in (("HLS", b"#EXTM3U"), ("DASH", b"<?xml")):
                with urllib.request.urlopen(addresses[name], timeout=30) as response:
                    assert response.status == 200
                    assert response.read().startswith(start)
            demo.send_signal(number)
            rest, errors = demo.communicate(timeout=30)
        finally:
            demo.terminate()
    assert (demo.returncode, rest, errors) == (0, "", "")
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(port))) != 0


def test_a_server_that_cannot_start_is_not_waited_for(tmp_path: Path) -> None:
    environment = surroundings(tmp_path, free_port(), tmp_path / "nothing.mp4")
    done = subprocess.run(
        [sys.executable, DEMO], env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "[source_not_found]" in done.stderr
