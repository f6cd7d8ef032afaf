"""What a process is started with: standard streams that are closed or full, limits, no home folder, odd file names."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from streamgate.core.settings import ServerSettings
from streamgate.errors import StreamGateError

SERVE = (sys.executable, "-W", "error", "-m", "streamgate.cli", "serve")


def close(*numbers: int) -> Callable[[], None]:
    def now() -> None:
        for number in numbers:
            os.close(number)

    return now


@pytest.mark.parametrize("closed", [(2,), (0, 2), (0, 1, 2)])
def test_without_standard_streams(folder: Path, tmp_path: Path, closed: tuple[int, ...]) -> None:
    port = "0" if 1 not in closed else _free_port()
    process = subprocess.Popen(
        [*SERVE, str(folder), "--port", port], stdout=subprocess.PIPE, text=True, preexec_fn=close(*closed)
    )
    try:
        assert process.stdout is not None
        told = process.stdout.readline()
        if 1 not in closed:
            port = re.search(r":(\d+)/", told)[1]  # type: ignore[index]
        _until_it_answers(f"http://127.0.0.1:{port}/health/live", process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


def test_who_started_it_has_gone(folder: Path) -> None:
    port = _free_port()
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.Popen([*SERVE, str(folder), "--port", port], stdout=writing, stderr=writing)
    os.close(writing)
    try:
        _until_it_answers(f"http://127.0.0.1:{port}/health/live", process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


def test_file_names_that_are_no_text_and_few_files(folder: Path, tmp_path: Path) -> None:
    film = (folder / "film.mp4").read_bytes()
    for name in (b"film\xff.mp4", b"film\xfe.mp4"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(film)
    process = subprocess.Popen(
        [*SERVE, str(tmp_path), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512)),
    )
    try:
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(4)]
        url = told[0].split()[-1].decode()
        assert b"asset_id_collision" in told[3]
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (512, 512)
        with urlopen(f"{url}v/film/main.m3u8") as answer:
            assert answer.read().startswith(b"#EXTM3U")
        with urlopen(f"{url}assets.json") as answer:
            assert b"asset_id_collision" in answer.read()
    finally:
        process.kill()
        process.communicate()


def test_no_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(*_: Any) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(StreamGateError) as caught:
        ServerSettings().data_folder  # noqa: B018
    assert caught.value.code == "config_invalid" and "server.data" in caught.value.detail
    assert ServerSettings(data="there").data_folder == Path("there")


def _free_port() -> str:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:
        return str(listening.getsockname()[1])


def _until_it_answers(url: str, process: subprocess.Popen[Any]) -> None:
    while True:
        assert process.poll() is None
        try:
            with urlopen(url, timeout=10) as answer:
                assert answer.status == 200
                return
        except OSError:
            continue
