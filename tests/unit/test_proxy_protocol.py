"""PROXY headers: those of the specification, those that lie, and those that come byte by byte."""

from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.proxies import packed
from edge.proxy_protocol import Incomplete, parse, receive
from streamgate.errors import StreamGateError

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V4 = packed("192.0.2.1") + packed("198.51.100.1") + b"\x30\x39\x01\xbb"
V6 = packed("2001:db8::1") + packed("2001:db8::2") + b"\x30\x39\x01\xbb"


def v2(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + bytes((command, family)) + len(body).to_bytes(2) + body


GOOD = {
    b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 443\r\n": packed("192.0.2.1"),
    b"PROXY TCP6 2001:db8::1 2001:db8::2 12345 443\r\n": packed("2001:db8::1"),
    b"PROXY UNKNOWN\r\n": b"",
    b"PROXY UNKNOWN ffff:f 65535\r\n": b"",
    v2(0x21, 0x11, V4): packed("192.0.2.1"),
    v2(0x21, 0x21, V6): packed("2001:db8::1"),
    v2(0x21, 0x11, V4 + b"\x04\0\x01x"): packed("192.0.2.1"),
    v2(0x20, 0x00, b""): b"",
    v2(0x20, 0x11, V4): b"",
    v2(0x21, 0x12, V4): b"",
    v2(0x21, 0x31, bytes(216)): b"",
}
BAD = [
    b"GET / HTTP/1.1\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.1 12345\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 443\n",
    b"PROXY TCP4 2001:db8::1 198.51.100.1 12345 443\r\n",
    b"PROXY TCP6 192.0.2.1 198.51.100.1 12345 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.1 99999 443\r\n",
    b"PROXY TCP4 192.0.2.1  198.51.100.1 1 443\r\n",
    b"PROXY UNKNOWN " + b"x" * 200 + b"\r\n",
    b"PROXY " + b"x" * 200,
    v2(0x11, 0x11, V4),
    v2(0x22, 0x11, V4),
    v2(0x21, 0x11, V4[:-1]),
    v2(0x21, 0x21, V4),
    v2(0x21, 0x11, bytes(5000)),
    SIGNATURE[:-1] + b"X" + bytes(20),
]


@pytest.mark.parametrize(("data", "address"), GOOD.items(), ids=repr)
def test_headers(data: bytes, address: bytes) -> None:
    assert parse(data + b"GET / HTTP/1.1\r\n") == (address, len(data))
    for length in range(len(data)):
        with pytest.raises(Incomplete):
            parse(data[:length])


@pytest.mark.parametrize("data", BAD, ids=repr)
def test_what_is_none(data: bytes) -> None:
    with pytest.raises(StreamGateError) as raised:
        parse(data)
    assert raised.value.code == "request_malformed"


@given(
    st.binary(max_size=200)
    | st.binary(max_size=60).map(lambda tail: SIGNATURE + tail)
    | st.binary(max_size=60).map(lambda tail: b"PROXY " + tail)
)
def test_any_bytes(data: bytes) -> None:
    try:
        address, end = parse(data)
    except (Incomplete, StreamGateError):
        return
    assert len(address) in (0, 4, 16)
    assert 0 < end <= len(data)


@pytest.mark.parametrize("data", GOOD, ids=repr)
@pytest.mark.parametrize("piece", [1, 7, 1000])
async def test_nothing_behind_it_is_taken(data: bytes, piece: int) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        whole = data + b"GET / HTTP/1.1\r\n"

        async def send() -> None:
            for at in range(0, len(whole), piece):
                theirs.send(whole[at : at + piece])
                await asyncio.sleep(0)

        sending = asyncio.create_task(send())
        assert await receive(ours, 5) == GOOD[data]
        await sending
        assert ours.recv(100) == b"GET / HTTP/1.1\r\n"


async def test_who_says_nothing_is_not_waited_for() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        theirs.send(b"PROX")
        with pytest.raises(StreamGateError) as raised:
            await receive(ours, 0.05)
    assert raised.value.code == "head_timeout"


async def test_who_leaves() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        theirs.send(b"PROXY")
        theirs.close()
        with pytest.raises(ConnectionResetError):
            await receive(ours, 5)
