"""The PROXY protocol, versions 1 and 2: what a balancer says of a client before the client's first byte.

Source: haproxy, doc/proxy-protocol.txt, sections 2.1 and 2.2.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable

from edge.proxies import Proxies, packed
from streamgate.core.settings import ServerSettings
from streamgate.errors import StreamGateError

_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_V2_HEAD = 16
_V1_LONGEST = 107
_V1 = re.compile(rb"PROXY (?:TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) (\d{1,5}) (\d{1,5})|UNKNOWN[^\r]*)\r\n")
# Beside the addresses a header may carry further fields; nobody sends more than a few hundred bytes.
_LONGEST = 4096
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21


class Incomplete(Exception):
    """More bytes are needed."""


def parse(data: bytes) -> tuple[bytes, int]:
    """The packed address of the client and the length of the header that ``data`` begins with.

    The address is b"" where the balancer speaks for itself, or cannot tell. Raises :class:`Incomplete`, and
    StreamGateError ``request_malformed`` for what is no header, which must not be guessed about.
    """
    if data[: len(_V2)] == _V2[: len(data)] and data[:1] == b"\r":
        return _parse_v2(data)
    end = data.find(b"\n", 0, _V1_LONGEST) + 1
    if not end:
        if len(data) < _V1_LONGEST and data[:6] == b"PROXY "[: len(data)]:
            raise Incomplete
        raise _malformed()
    found = _V1.fullmatch(data[:end])
    if found is None:
        raise _malformed()
    if found[1] is None:
        return b"", end
    address, destination = _address(found[2]), _address(found[3])
    if {address.version, destination.version} != {int(found[1])} or int(found[4]) > 65535 or int(found[5]) > 65535:
        raise _malformed()
    return address.packed, end


def _parse_v2(data: bytes) -> tuple[bytes, int]:
    if len(data) < _V2_HEAD:
        raise Incomplete
    command, family, length = data[12], data[13], int.from_bytes(data[14:16])
    end = _V2_HEAD + length
    if command not in (_LOCAL, _PROXY) or end > _LONGEST:
        raise _malformed()
    if len(data) < end:
        raise Incomplete
    # What it says of other families than TCP's is to be skipped; what a health check of its own says, too.
    if command == _LOCAL or family not in (_TCP4, _TCP6):
        return b"", end
    size, both = (4, 12) if family == _TCP4 else (16, 36)
    if length < both:
        raise _malformed()
    return data[_V2_HEAD : _V2_HEAD + size], end


def introduction(settings: ServerSettings) -> Callable[[socket.socket], Awaitable[bytes | None]]:
    """Takes the header from connections of trusted proxies; others speak for themselves."""
    proxies = Proxies(settings.trusted_proxies)

    async def introduce(connection: socket.socket) -> bytes | None:
        try:
            name = connection.getpeername()
        except OSError as error:
            raise ConnectionResetError("gone already") from error
        if not proxies.trusts(packed(name[0]) if isinstance(name, tuple) else b""):
            return None
        return await receive(connection, settings.head_timeout) or None

    return introduce


async def receive(connection: socket.socket, timeout: float) -> bytes:
    """Take the header from a new connection, and nothing behind it; the client's packed address, or b"".

    Raises StreamGateError ``request_malformed``, ``head_timeout`` after ``timeout`` seconds, and ConnectionError.
    """
    loop = asyncio.get_running_loop()
    taken = b""
    try:
        async with asyncio.timeout(timeout):
            while True:
                seen = await _peek(loop, connection)
                try:
                    address, end = parse(taken + seen)
                except Incomplete:
                    # Taken, or else the socket would go on telling that there is something.
                    taken += connection.recv(len(seen))
                    continue
                connection.recv(end - len(taken))
                return address
    except TimeoutError:
        raise StreamGateError("head_timeout") from None


async def _peek(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> bytes:
    """What has come, at least a byte, left where it is."""
    while True:
        try:
            seen = connection.recv(_LONGEST, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            readable = asyncio.Event()
            loop.add_reader(connection, readable.set)
            try:
                await readable.wait()
            finally:
                loop.remove_reader(connection)
            continue
        if not seen:
            raise ConnectionResetError("closed before the PROXY header was whole")
        return seen


def _address(text: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text.decode("ascii"))
    except ValueError:
        raise _malformed() from None


def _malformed() -> StreamGateError:
    return StreamGateError("request_malformed", "no PROXY header")
