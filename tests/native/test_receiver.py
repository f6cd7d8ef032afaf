"""Receiving without the transport: many requests at once, ends and faults, and the way back to the transport."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from tests.native.hot import Node, answer, get, until

BODY = bytes(range(256))
MANY = 3000  # requests: several times what is taken from a socket at once


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def runner(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Runs a coroutine on each kind of loop."""

    def run(work: Any) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(work)

    return run


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str = "/v/a/0") -> bytes:
    writer.write(get(path))
    return (await asyncio.wait_for(answer(reader), 10))[2]


class Broken(str):
    """A state that cannot be compared."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise ValueError("broken")


def node_with(body: bytes = BODY, **more: Any) -> Node:
    node = Node(**more)
    node.put("/v/a/0", body)
    return node


def test_more_requests_than_are_read_at_once(runner: Callable[[Any], Any]) -> None:
    async def work() -> None:
        node = node_with()
        async with node.listening() as port, connected(port) as (reader, writer):
            assert await asked(reader, writer) == BODY
            requests = get("/v/a/0", "User-Agent: " + 100 * "a") * MANY
            assert len(requests) > 4 * 65536
            writer.write(requests)
            for _ in range(MANY):
                assert (await asyncio.wait_for(answer(reader), 10))[2] == BODY
            assert node.count("native_answers") == MANY + 1 and not node.handlers

    runner(work())


def test_a_request_and_the_end_in_one(runner: Callable[[Any], Any]) -> None:
    """The end that comes with a request makes no event of its own, and must not be missed."""

    async def work() -> None:
        node = node_with()
        async with node.listening() as port, connected(port) as (reader, writer):
            assert await asked(reader, writer) == BODY
            writer.write(get("/v/a/0"))
            writer.write_eof()
            assert (await asyncio.wait_for(answer(reader), 10))[2] == BODY
            assert await asyncio.wait_for(reader.read(), 10) == b""
            await until(lambda: not node.factory.connections)

    runner(work())


def test_a_reset_is_noticed(runner: Callable[[Any], Any]) -> None:
    async def work() -> None:
        node = node_with()
        async with node.listening() as port:
            for n in range(3):
                async with connected(port) as (reader, writer):
                    assert await asked(reader, writer) == BODY
                    if n:
                        writer.write(get("/v/a/0")[: 20 * n])
                    sock = writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    writer.transport.abort()
                await until(lambda: not node.factory.connections)

    runner(work())


def test_who_was_handed_on_is_read_by_the_transport(runner: Callable[[Any], Any]) -> None:
    """And still answered natively, in between and after."""

    async def work() -> None:
        node = node_with()
        async with node.listening() as port, connected(port) as (reader, writer):
            for path, body in (("/v/a/0", BODY), ("/other", b"handled"), ("/v/a/0", BODY), ("/other", b"handled")):
                assert await asked(reader, writer, path) == body
            assert len(node.handlers) == 1 and node.handlers[0].transport.is_reading()
            writer.write(get("/v/a/0") + get("/other") + get("/v/a/0"))
            bodies = [(await asyncio.wait_for(answer(reader), 10))[2] for _ in range(3)]
            assert bodies == [BODY, b"handled", BODY]
            assert node.count("native_answers") == 4

    runner(work())


def test_a_fault_ends_its_connection_only(runner: Callable[[Any], Any]) -> None:
    async def work() -> None:
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))

        node = node_with()
        async with node.listening() as port, connected(port) as (reader, writer), connected(port) as (faulty, asking):
            assert await asked(reader, writer) == await asked(faulty, asking) == BODY
            node.health.state = Broken()
            asking.write(get("/v/a/0"))
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await asyncio.wait_for(answer(faulty), 10)
            node.health.state = "ready"
            assert await asked(reader, writer) == BODY
            assert [type(failure["exception"]) for failure in failures] == [ValueError]

    runner(work())


def test_the_loop_watches_nothing_when_all_have_gone(runner: Callable[[Any], Any]) -> None:
    async def work() -> None:
        node = node_with()
        async with node.listening() as port:
            for _ in range(3):
                async with connected(port) as (one, first), connected(port) as (other, second):
                    assert await asked(one, first) == await asked(other, second) == BODY
                await until(lambda: not node.factory.connections)

    runner(work())
