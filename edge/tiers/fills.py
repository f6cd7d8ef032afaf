"""One flight per object and machine: who leads writes a growing file, everybody sends from it at a viewer's own pace.

Within a process a second request finds the flight of the first. Another process finds the claimed file, opens it, and
asks its leader on a Unix socket how far it is: the leader tells each step, and if it dies the connection ends.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import struct
import zlib
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from edge.entries import Entry, Fetched
from edge.threads import Pool
from edge.tiers.claims import Claim
from edge.tiers.disk import DiskTier
from edge.tiers.growing import Growing
from edge.tiers.negatives import Negatives
from streamgate.core.logging import get_logger
from streamgate.core.telemetry import Telemetry
from streamgate.errors import CODES, StreamGateError

_STEP = 1024 * 1024
_FETCHED = 256 * 1024  # of what comes from afar viewers get smaller pieces, sooner
_TRIES = 8
_FAILED = 2**64 - 1
_WORD = struct.Struct("<Q")
_MOST_DETAIL = 4096
_log = get_logger("edge.fills")


class Fills:
    """The flights of this process, and those of others that it follows."""

    def __init__(self, disk: DiskTier, pool: Pool, negatives: Negatives, telemetry: Telemetry) -> None:
        self._disk = disk
        self._pool = pool
        self._negatives = negatives
        self._telemetry = telemetry
        self._flights: dict[str, asyncio.Task[Entry | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def under_way(self) -> int:
        """Objects that this process makes, or follows."""
        return len(self._flights)

    async def start(self) -> None:
        """Listen for the machine's other processes."""
        if not self._disk.budget:
            return
        # An abstract address needs no file that outlives us, and no short path; only who can read a claim knows it.
        self._disk.address = f"@streamgate-{secrets.token_hex(16)}"
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        listening.bind(_abstract(self._disk.address))
        self._server = await asyncio.start_unix_server(self._tell, sock=listening)

    async def close(self) -> None:
        """End the flights: what is unfinished is thrown away."""
        if self._server is not None:
            self._server.close()
        for task in (*self._tasks, *self._flights.values()):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._flights.values(), return_exceptions=True)

    async def join(self, key: str, entry: Entry, timeout: float) -> tuple[Entry, bool] | None:
        """``entry`` with a body that is being made, or is on the disk by now, and whether somebody else began it.

        None where the disk takes no writes. Raises what the flight fails with before it has a byte; ``fill_lost`` where
        it has none within ``timeout`` seconds. One whose leader dies before is begun anew.
        """
        for _ in range(_TRIES):
            if not self._disk.writable and key not in self._flights:
                return None
            joined = await self._join(key, entry)
            if joined is None or not isinstance(body := joined[0].body, Growing):
                return joined
            try:
                async with asyncio.timeout(timeout):
                    await body.beyond(0)
            except TimeoutError:
                raise StreamGateError("fill_lost") from None
            if body.written or not body.size:
                return joined
            assert body.error is not None
            if body.error.code == "cache_failed":
                return None
            if body.error.code != "fill_lost":
                raise StreamGateError(body.error.code, body.error.detail)
        return None

    def detach(self, meant: Callable[[str], bool]) -> list[str]:
        """Let nobody else join the flights of the keys that are ``meant``; which they are. Who has joined goes on."""
        purged = [key for key in self._flights if meant(key)]
        for key in purged:
            del self._flights[key]
        return purged

    async def _join(self, key: str, entry: Entry) -> tuple[Entry, bool] | None:
        flight = self._flights.get(key)
        if flight is not None:
            joined = await asyncio.shield(flight)
            return (joined, True) if joined is not None else None
        flight = self._flights[key] = asyncio.ensure_future(self._begin(key, entry))
        flight.add_done_callback(lambda done: self._begun(key, done))
        joined = await asyncio.shield(flight)
        if joined is None:
            return None
        return joined, not (isinstance(joined.body, Growing) and joined.body.leads)

    def _begun(self, key: str, flight: asyncio.Task[Entry | None]) -> None:
        entry = flight.result() if not flight.cancelled() and flight.exception() is None else None
        if entry is None or not isinstance(entry.body, Growing) or entry.body.ended:
            self._over(key, flight)

    def _over(self, key: str, flight: asyncio.Task[Any]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def _begin(self, key: str, entry: Entry) -> Entry | None:
        flight = asyncio.current_task()
        assert flight is not None
        for _ in range(_TRIES):
            claim = await self._pool.run(self._disk.claim, key, entry.size)
            if not isinstance(claim, Claim):
                return claim
            growing = Growing(claim, entry.size)
            if claim.leads:
                self._telemetry.count("fills", result="begun")
                self._spawn(key, flight, self._lead(key, flight, entry, growing))
                return replace(entry, body=growing)
            connection = await self._ask(key, growing)
            if connection is not None:
                self._telemetry.count("fills", result="followed")
                self._spawn(key, flight, self._follow(key, growing, *connection))
                return replace(entry, body=growing)
        return None

    def _spawn(self, key: str, flight: asyncio.Task[Any], work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)

        def ended(_: object) -> None:
            self._tasks.discard(task)
            self._over(key, flight)

        self._tasks.add(task)
        task.add_done_callback(ended)

    # --- leading

    async def _lead(self, key: str, flight: asyncio.Task[Any], entry: Entry, growing: Growing) -> None:
        try:
            if isinstance(entry.body, Fetched):
                await self._fetch(key, entry, entry.body, growing)
            else:
                await self._pool.run(self._make, key, entry, growing, asyncio.get_running_loop())
            # Whoever has the last byte finds the object from now on, and no flight.
            self._over(key, flight)
            growing.advance(growing.size)
        except StreamGateError as error:
            self._telemetry.count("fills", result="failed")
            growing.fail(error)
            self._negatives.remember(key, error)
        except asyncio.CancelledError:
            growing.fail(StreamGateError("stopping"))
            raise
        except Exception:
            _log.exception("a fill failed")
            growing.fail(StreamGateError("internal"))
        finally:
            growing.fail(StreamGateError("fill_lost"))
            if not growing.claim.begun:
                await asyncio.to_thread(growing.claim.give_up)

    async def _fetch(self, key: str, entry: Entry, body: Fetched, growing: Growing) -> None:
        """Write the body as it arrives, and give the claim up."""
        growing.claim.begun = True
        crc = start = 0
        step = entry.size if body.whole else _FETCHED
        try:
            while (left := entry.size - start) > step:
                block = await body.fetch(start, step)
                crc = await self._pool.run(self._put, growing.claim, block, start, step, crc)
                growing.latest = (start, block)
                start += step
                growing.advance(start)
            block = await body.fetch(start, left)
            await self._pool.run(self._finish, key, entry, growing.claim, block, start, crc)
            growing.latest = (start, block)
        except BaseException:
            await asyncio.to_thread(growing.claim.give_up)
            raise

    def _finish(self, key: str, entry: Entry, claim: Claim, block: bytes, start: int, crc: int) -> None:
        """Write the last block, make it an object, and give the claim up; in one go, for threads cost time. Blocking."""
        crc = self._put(claim, block, start, entry.size - start, crc)
        self._disk.commit(claim, key, entry, crc)
        claim.give_up()

    def _make(self, key: str, entry: Entry, growing: Growing, loop: asyncio.AbstractEventLoop) -> None:
        """Write the body step by step, in a thread, and give the claim up."""
        growing.claim.begun = True
        try:
            self._write(key, entry, growing, loop)
        finally:
            growing.claim.give_up()

    def _write(self, key: str, entry: Entry, growing: Growing, loop: asyncio.AbstractEventLoop) -> None:
        assert not isinstance(entry.body, bytes | Fetched)
        crc = 0
        step = entry.size if entry.body.whole else _STEP
        for start in range(0, entry.size, step):
            length = min(step, entry.size - start)
            crc = self._put(growing.claim, entry.body.read(start, length), start, length, crc)
            if start + length < entry.size:
                loop.call_soon_threadsafe(growing.advance, start + length)
        self._disk.commit(growing.claim, key, entry, crc)

    def _put(self, claim: Claim, block: bytes, start: int, length: int, crc: int) -> int:
        """Write a block; the checksum with it. Blocking."""
        if len(block) != length:
            raise StreamGateError("internal", f"a cut gave {len(block)} bytes instead of {length}")
        try:
            claim.write(block, start)
        except OSError as error:
            self._disk.failed(error)
            raise StreamGateError("cache_failed", os.strerror(error.errno or 0)) from error
        return zlib.crc32(block, crc)

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Tell a follower in another process how far a flight is, until it has ended."""
        try:
            length = (await reader.readexactly(1))[0] * 256 + (await reader.readexactly(1))[0]
            flight = self._flights.get((await reader.readexactly(length)).decode())
            entry = await asyncio.shield(flight) if flight is not None else None
            if entry is None or not isinstance(entry.body, Growing) or not entry.body.leads:
                return
            growing, told = entry.body, -1
            while told != growing.size:
                await growing.beyond(told)
                if growing.error is not None:
                    writer.write(_WORD.pack(_FAILED) + f"{growing.error.code} {growing.error.detail}".encode())
                    break
                told = growing.written
                writer.write(_WORD.pack(told))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, StreamGateError, RuntimeError):
            pass  # it has gone; uvloop says so by a RuntimeError
        finally:
            writer.close()

    # --- following

    async def _ask(self, key: str, growing: Growing) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection to the leader that has told the first step, or None where it is gone or never had it."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            await asyncio.get_running_loop().sock_connect(connection, _abstract(growing.claim.address))
            reader, writer = await asyncio.open_unix_connection(sock=connection)
        except OSError:
            connection.close()
            return None
        name = key.encode()
        try:
            writer.write(len(name).to_bytes(2, "big") + name)
            await self._heard(key, growing, reader)
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()
            return None
        except BaseException:
            writer.close()
            raise
        return reader, writer

    async def _follow(
        self, key: str, growing: Growing, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while not growing.ended:
                await self._heard(key, growing, reader)
        except (ConnectionError, asyncio.IncompleteReadError):
            growing.fail(StreamGateError("fill_lost"))
        finally:
            growing.fail(StreamGateError("stopping"))
            writer.close()

    async def _heard(self, key: str, growing: Growing, reader: asyncio.StreamReader) -> None:
        (word,) = _WORD.unpack(await reader.readexactly(_WORD.size))
        if word != _FAILED:
            growing.advance(min(word, growing.size))
            return
        code, _, detail = (await reader.read(_MOST_DETAIL)).decode("utf-8", "replace").partition(" ")
        error = StreamGateError(code if code in CODES else "internal", detail)
        growing.fail(error)
        self._negatives.remember(key, error)


def _abstract(address: str) -> str:
    return address.replace("@", "\0", 1)
