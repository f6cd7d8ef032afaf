"""What the processes of a node tell each other: JSON, a line a message, over a pair of sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import Any

Message = dict[str, Any]
_LINE = 1024 * 1024  # bytes of a message at most


class Channel:
    """One end of the pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Channel:
        """The channel that ``end`` carries."""
        end.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=end, limit=_LINE))

    def send(self, message: Message) -> None:
        """Send without waiting; nothing happens where the other side has gone."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> Message | None:
        """The next message; None when the other side has gone."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        return json.loads(line) if line.endswith(b"\n") else None

    async def close(self) -> None:
        """Go, when what was sent is on its way."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
