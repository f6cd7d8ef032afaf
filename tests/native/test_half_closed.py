"""Clients that say no more but listen, and those that take their time to begin."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from tests.native.hot import Node, answer, get, until

Run = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]
LARGE = bytes(8 << 20)


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    def go(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(work())

    return go


def test_who_says_no_more_is_answered(run: Run) -> None:
    async def work() -> None:
        node = Node()
        node.put("/v/a/0", b"small")
        node.put("/v/a/large", LARGE)
        async with node.listening() as port:
            for asked in (
                ["0"],
                ["none"],
                ["large"],
                ["0", "none", "large", "0"],
                ["large", "none"],
                ["none", "large"],
            ):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"".join(get(f"/v/a/{name}") for name in asked))
                writer.write_eof()
                for name in asked:
                    status, _, body = await answer(reader)
                    assert (status, body) == (200, {"0": b"small", "none": b"handled", "large": LARGE}[name])
                assert await reader.read() == b""
                writer.close()
            await until(lambda: not node.factory.connections)
            assert node.count("requests_aborted/client") == 0

    run(work)


def test_an_empty_line_begins_no_head(run: Run) -> None:
    async def work() -> None:
        node = Node(head_timeout=0.4, keepalive_timeout=10)
        node.put("/v/a/0", b"small")
        async with node.listening() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(get("/v/a/0"))
            await answer(reader)
            (protocol,) = node.factory.connections
            protocol.data_received(b"\r")
            protocol.data_received(b"\n")
            late = time.monotonic() + 0.5  # longer than a head may take
            await until(lambda: time.monotonic() > late)
            request = get("/v/a/0")
            protocol.data_received(request[:10])
            node.factory.sweep()
            protocol.data_received(request[10:])
            assert (await answer(reader))[0] == 200
            writer.close()

    run(work)
