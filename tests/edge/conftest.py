"""Media for the edge's tests, an edge that serves it, and a guard: nothing may block the event loop."""

from __future__ import annotations

import asyncio
import builtins
import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvloop

from benchmarks.peers.certificate import Certificate, self_signed
from edge import compression, media
from tests.edge.harness import Edge, Folder, running
from tests.media_factory import Audio, Video, ladder, make

_ROOT = Path(__file__).resolve().parent.parent.parent
_OURS = (str(_ROOT / "edge"), str(_ROOT / "streamgate"))
_BLOCKING: list[tuple[Any, str]] = [
    (time, "sleep"),
    (builtins, "open"),
    (io, "open"),
    (os, "open"),
    (os, "read"),
    (os, "pread"),
    (os, "preadv"),
    (os, "stat"),
    (os, "scandir"),
    (os, "listdir"),
    (os, "unlink"),
    (os, "replace"),
    (os, "mkdir"),
    (socket, "getaddrinfo"),
    (subprocess, "Popen"),
    # Ours, which block in C or just take long.
    (media.PlanCut, "read"),
    (media.TsCut, "read"),
]


class BlockingCall(AssertionError):
    """Something of ours blocked the event loop."""


def _from_ours() -> str | None:
    """The nearest frame of the call that is ours; None where the interpreter imports, or writes a traceback."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith("<frozen importlib") or name.endswith(("/linecache.py", "/traceback.py")):
            return None
        if name.startswith(_OURS):
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return None


def guard(name: str, original: Callable[..., Any], seen: list[str]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        if asyncio._get_running_loop() is not None and (where := _from_ours()) is not None:
            seen.append(f"{name} called in the event loop at {where}")
            raise BlockingCall(seen[-1])
        return original(*arguments, **named)

    return call


@pytest.fixture(autouse=True)
def no_blocking_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Turns a blocking call of ours inside the event loop into an error, even where somebody catches it."""
    seen: list[str] = []
    for owner, name in _BLOCKING:
        monkeypatch.setattr(owner, name, guard(name, getattr(owner, name), seen))
    encode = compression.encode
    heavy = guard("compression.encode", encode, seen)
    monkeypatch.setattr(
        compression, "encode", lambda data, coding: (heavy if len(data) > 8192 else encode)(data, coding)
    )
    yield seen
    assert not seen


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """What was logged."""
    with structlog.testing.capture_logs() as captured:
        yield captured


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], Any]]:
    """The loop that the server runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two assets: a lone file, and a ladder with languages and subtitles."""
    root = tmp_path_factory.mktemp("assets")
    make(root / "film.mp4", Video(gop=25), Audio(), seconds=9)
    rungs = ((160, 90, 60_000), (320, 180, 160_000))
    ladder(root / "ladder", seconds=6, rungs=rungs, title="A ladder", gop=25)
    return root


@pytest.fixture(scope="module")
def certificate() -> Iterator[Certificate]:
    """A certificate of the tests of one file, in which they may write."""
    with self_signed() as made:
        yield made


@pytest.fixture
async def edge(folder: Path) -> AsyncIterator[Edge]:
    """An edge with default settings over ``folder``."""
    async with running(Folder(folder)) as started:
        yield started
