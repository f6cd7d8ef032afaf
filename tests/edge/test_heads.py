"""Heads that two servers in a row could understand in two ways, and heads without end."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from tests.edge.harness import Edge, Folder, running, settings

LIVE = b"GET /health/live HTTP/1.1\r\nHost: a\r\n"
# A second request, behind the first one in the same packet.
NEXT = b"GET /version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
BODY = b"4\r\nabcd\r\n0\r\n\r\n"


async def answers(edge: Edge, *parts: bytes) -> bytes:
    """Everything that comes back until the server ends the connection."""
    async with edge.connect() as (reader, writer):
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await reader.read()


@pytest.mark.parametrize(
    "head",
    [
        LIVE + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + BODY,
        LIVE + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
        LIVE + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
        LIVE + b"Content-Length: 4, 4\r\n\r\nabcd",
        LIVE + b"Content-Length: +4\r\n\r\nabcd",
        LIVE + b"Content-Length : 4\r\n\r\nabcd",
        LIVE + b"Transfer-Encoding: xchunked\r\n\r\n" + BODY,
        LIVE + b"Transfer-Encoding: chunked, identity\r\n\r\n" + BODY,
        LIVE + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + BODY,
        LIVE + b"Transfer-Encoding: chunked\r\n\r\n4;a\nabcd\r\n0\r\n\r\n",
        LIVE + b"Transfer-Encoding: chunked\r\n\r\n-4\r\nabcd\r\n0\r\n\r\n",
        LIVE + b"X: a\r\n b\r\n\r\n",
        LIVE + b"X: a\nY: b\r\n\r\n",
        LIVE + b"X: a\rY: b\r\n\r\n",
        LIVE + b"X: a\0b\r\n\r\n",
        LIVE + b"X y: a\r\n\r\n",
        LIVE + b"Host: b\r\n\r\n",
        b"GET /health/live HTTP/1.1\nHost: a\n\n",
        b"GET /health/live HTTP/1.1\r\nHost: a/b\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET /health/live HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET /health/live\r\n\r\n",
        b"OPTIONS /health/live HTTP/1.1\r\n\r\n",
        b"GET /health/live HTTP/1.0\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n" + BODY,
    ],
)
async def test_ambiguous_heads_are_refused(edge: Edge, head: bytes) -> None:
    received = await answers(edge, head + NEXT)
    first = received.partition(b"\r\n")[0]
    assert first == (b"HTTP/1.0" if b" HTTP/1.0" in head else b"HTTP/1.1") + b" 400 Bad Request"
    assert b'"request_malformed"' in received
    assert (await edge.ask("/health/live")).status == 200


@pytest.mark.parametrize("line", [b"GET / HTTP/2.0\r\nHost: a", b"GET / HTTP/0.9\r\nHost: a", b"GET /"])
async def test_other_versions_are_answered_in_ours(edge: Edge, line: bytes) -> None:
    answer = await answers(edge, line + b"\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n") and b'"request_malformed"' in answer


@pytest.mark.parametrize(
    "head",
    [
        LIVE + b"Content-Length: 4\r\n\r\nabcd",
        LIVE + b"Transfer-Encoding: chunked\r\n\r\n" + BODY,
        LIVE + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + BODY,
        LIVE + b"Content-Length: 4\r\nContent-Encoding: gzip\r\n\r\nabcd",
        LIVE + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        LIVE + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
        b"POST /health/live HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd",
    ],
)
async def test_nothing_follows_a_body_or_an_upgrade(
    edge: Edge, head: bytes, logs: list[MutableMapping[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    received = await answers(edge, head + NEXT)
    assert received.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close\r\n" in received and b'"openssl"' not in received
    # A body is not decoded, so a broken one is nothing to write a traceback about.
    assert not caplog.records and not [line for line in logs if line["log_level"] == "error"]


async def test_a_head_without_end(folder: Path) -> None:
    """Fields that are each short enough, but too many bytes all in all; and dribbled ones."""
    async with running(Folder(folder), settings(server={"max_head": 4096})) as edge:
        field = b"X: " + b"a" * 990 + b"\r\n"
        async with edge.connect() as (reader, writer):
            writer.write(LIVE + 4 * field)
            await writer.drain()
            writer.write(field)
            received = await reader.read()
        assert received.startswith(b"HTTP/1.1 431 ") and b'"head_too_large"' in received
        assert edge.node.telemetry.value("errors", code="head_too_large") == 1
        # What was answered is counted no more.
        async with edge.connect() as (reader, writer):
            for _ in range(20):
                writer.write(LIVE + field + b"\r\n")
                assert b"200 OK" in await reader.readuntil(b'live"}')
