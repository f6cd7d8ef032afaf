"""One flight per object and machine: who leads makes it and writes a growing file, everybody sends from it at a viewer's own pace.

Within a process a second request finds the flight of the first. Another process finds the claimed file, opens it, and
asks its leader on a Unix socket how far it is: the leader tells each step, and if it dies the connection ends.

What comes from afar is in memory first, and the leader's own viewers are sent from there: no disk is in their way. It is written in
one go when it is whole, or as it comes if another process follows.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import struct
import weakref
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

from edge.budget import Budget
from edge.entries import Entry, Fetched
from edge.threads import Pool
from edge.tiers.claims import Claim
from edge.tiers.disk import DiskTier
from edge.tiers.growing import Growing
from edge.tiers.negatives import Negatives
from streamgate.core.logging import get_logger
from streamgate.core.telemetry import Telemetry
from streamgate.errors import CODES, StreamGateError
from streamgate.native.slabs import Slabs

_STEP = 1024 * 1024
_FETCHED = 256 * 1024  # where memory is short, what comes from afar is written in such pieces
_SPARE = 16 * 1024 * 1024
_LINGER_S = 1.0  # so long after it was written viewers find it in memory; who is slower reads the file
_ALIVE_S = 1.0  # who leads says so often that it lives
_SILENT_S = 10.0
_TRIES = 8
_FAILED = 2**64 - 1
_WORD = struct.Struct("<Q")
_MOST_DETAIL = 4096
_log = get_logger("edge.fills")


class Fills:
    """The flights of this process, and those of others that it follows."""

    def __init__(
        self,
        disk: DiskTier,
        pool: Pool,
        negatives: Negatives,
        telemetry: Telemetry,
        budget: Budget | None = None,
        slabs: Slabs | None = None,
        silence: float = 3.0,
    ) -> None:
        # Of the memory for bodies on their way those that come from afar get up to half.
        self._budget = budget or Budget(4 * _SPARE)
        self._slabs = slabs or Slabs(_SPARE)
        self._disk = disk
        self._pool = pool
        self._negatives = negatives
        self._telemetry = telemetry
        self._flights: dict[str, asyncio.Task[Entry | None]] = {}
        self._tasks: dict[asyncio.Task[None], Growing] = {}
        self._server: asyncio.Server | None = None
        self._silence = silence
        # Leaders that said nothing for too long, and until when they are not asked again.
        self._silent: dict[str, float] = {}

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
        """End the flights: what is unfinished is thrown away, what is only to be written is."""
        if self._server is not None:
            self._server.close()
        if whole := [task for task, body in self._tasks.items() if body.written == body.size]:
            await asyncio.wait(whole)
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

    async def settled(self, key: str) -> Entry | None:
        """What this process has made of ``key``, and viewers may have had to the last byte, if all of it is in memory; else
        None, when it is on the disk."""
        flight = self._flights.get(key)
        if flight is None or not flight.done() or flight.cancelled() or flight.exception() is not None:
            return None
        entry = flight.result()
        if entry is None or not isinstance(entry.body, Growing) or entry.body.written != entry.size:
            return None
        if entry.body.at_hand(0, entry.size) is not None:
            return entry
        await entry.body.beyond_stored(entry.size - 1)
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
        if entry is None or not isinstance(entry.body, Growing) or entry.body.settled:
            self._over(key, flight)

    def _over(self, key: str, flight: asyncio.Task[Any]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def _begin(self, key: str, entry: Entry) -> Entry | None:
        flight = asyncio.current_task()
        assert flight is not None
        if isinstance(entry.body, Fetched):
            entry.body.begin()
        for _ in range(_TRIES):
            claim = await self._disk.claimed(key, entry.size)
            if not isinstance(claim, Claim):
                return claim
            growing = Growing(claim, entry.size)
            if claim.leads:
                self._telemetry.count("fills", result="begun")
                self._spawn(key, flight, growing, self._lead(key, flight, entry, growing))
                return replace(entry, body=growing)
            if self._silent.get(claim.address, 0.0) > asyncio.get_running_loop().time():
                return None
            connection = await self._ask(key, growing)
            if connection is not None:
                self._telemetry.count("fills", result="followed")
                assert not isinstance(entry.body, bytes)
                growing.otherwise = entry.body
                self._spawn(key, flight, growing, self._follow(key, growing, *connection))
                return replace(entry, body=growing)
        return None

    def _spawn(self, key: str, flight: asyncio.Task[Any], growing: Growing, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)

        def ended(_: object) -> None:
            self._tasks.pop(task, None)
            self._over(key, flight)

        self._tasks[task] = growing
        task.add_done_callback(ended)

    # --- leading

    async def _lead(self, key: str, flight: asyncio.Task[Any], entry: Entry, growing: Growing) -> None:
        try:
            if isinstance(entry.body, Fetched):
                await self._fetch(key, entry, entry.body, growing)
            else:
                await self._pool.run(self._make, key, entry, growing, asyncio.get_running_loop())
            # Whoever reads the last byte in the file finds the object from now on, and no flight.
            self._over(key, flight)
            if growing.lost is None:
                growing.keep(growing.size)
                asyncio.get_running_loop().call_later(_LINGER_S, _let_go, weakref.ref(growing))
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
            growing.lose(StreamGateError("fill_lost"))
            if not growing.claim.begun:
                await self._give_up(growing.claim)

    async def _give_up(self, claim: Claim) -> None:
        with contextlib.suppress(Exception):  # it is swept when nobody has it open any more
            await self._disk.threads.run(claim.give_up)

    async def _fetch(self, key: str, entry: Entry, body: Fetched, growing: Growing) -> None:
        """Have the body made in memory and written, and give the claim up."""
        growing.claim.begun = True
        held = self._budget.reserve(entry.size, None)
        whole = body.whole or held is not None
        step = entry.size if whole else _FETCHED
        crc = 0
        try:
            for start in range(0, max(entry.size, 1), max(step, 1)):
                block = self._slabs.take(min(step, entry.size - start))
                growing.hold(start, block, held)
                fetching = asyncio.ensure_future(body.fill(block, start, growing.advance))
                fetching.add_done_callback(partial(_fetched, growing))
                try:
                    crc = await self._keep(key, entry, growing, block, start, crc)
                except StreamGateError as error:
                    if not whole or growing.error is not None:
                        raise
                    # That is the disk's trouble, and no viewer's.
                    growing.lose(error)
                    await self._give_up(growing.claim)
                finally:
                    if not growing.ended and growing.lost is None and growing.written < start + len(block):
                        fetching.cancel()
                await fetching
        except BaseException:
            await self._give_up(growing.claim)
            raise

    async def _keep(self, key: str, entry: Entry, growing: Growing, block: memoryview, start: int, crc: int) -> int:
        """Write a block that is being filled, when it is full or as it comes; the checksum with it."""
        end = start + len(block)
        while True:
            await growing.worth_keeping(end)
            if growing.error is not None:
                raise StreamGateError(growing.error.code, growing.error.detail)
            at, upto = growing.stored, growing.written
            part = block[at - start : upto - start]
            if upto == entry.size:
                await self._disk.threads.run(self._finish, key, entry, growing.claim, part, at, crc)
                return crc
            crc = await self._disk.threads.run(self._put, growing.claim, part, at, len(part), crc)
            growing.keep(upto)
            if upto == end:
                return crc

    def _finish(self, key: str, entry: Entry, claim: Claim, block: memoryview, start: int, crc: int) -> None:
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
                loop.call_soon_threadsafe(growing.keep, start + length)
        self._disk.commit(growing.claim, key, entry, crc)

    def _put(self, claim: Claim, block: bytes | memoryview, start: int, length: int, crc: int) -> int:
        """Write a block; the checksum with it. Blocking."""
        if len(block) != length:
            raise StreamGateError("internal", f"a cut gave {len(block)} bytes instead of {length}")
        try:
            return claim.write(block, start, crc)
        except OSError as error:
            self._disk.failed(error)
            raise StreamGateError("cache_failed", os.strerror(error.errno or 0)) from error

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Tell a follower in another process how far a flight is, until it has ended."""
        try:
            length = (await reader.readexactly(1))[0] * 256 + (await reader.readexactly(1))[0]
            flight = self._flights.get((await reader.readexactly(length)).decode())
            entry = await asyncio.shield(flight) if flight is not None else None
            if entry is None or not isinstance(entry.body, Growing) or not entry.body.leads:
                return
            growing, told = entry.body, -1
            growing.follow()
            while told != growing.size:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_ALIVE_S):
                        await growing.beyond_stored(told)
                error = growing.error
                if error is None and growing.lost is not None:
                    # That is our disk's trouble: who follows goes on without us.
                    error = StreamGateError("fill_lost", growing.lost.detail)
                if error is not None:
                    writer.write(_WORD.pack(_FAILED) + f"{error.code} {error.detail}".encode())
                    break
                told = growing.stored
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
        try:
            async with asyncio.timeout(self._silence):
                (word,) = _WORD.unpack(await reader.readexactly(_WORD.size))
        except TimeoutError:
            # It holds its claim, and may go on at any time: nobody touches what it writes.
            _log.warning("a process that makes what others wait for says nothing; it is made without it", path=key)
            now = asyncio.get_running_loop().time()
            self._silent = {address: end for address, end in self._silent.items() if end > now}
            self._silent[growing.claim.address] = now + _SILENT_S
            self._telemetry.count("fills", result="silent")
            raise ConnectionError("the leader says nothing") from None
        if word != _FAILED:
            growing.keep(min(word, growing.size))
            return
        code, _, detail = (await reader.read(_MOST_DETAIL)).decode("utf-8", "replace").partition(" ")
        error = StreamGateError(code if code in CODES else "internal", detail)
        growing.fail(error)
        self._negatives.remember(key, error)


def _fetched(growing: Growing, fetching: asyncio.Future[None]) -> None:
    """It has ended: whoever waits for more hears why there is none."""
    if fetching.cancelled():
        growing.fail(StreamGateError("stopping"))
    elif error := fetching.exception():
        growing.fail(error if isinstance(error, StreamGateError) else StreamGateError("internal", repr(error)))


def _let_go(of: weakref.ref[Growing]) -> None:
    growing = of()
    if growing is not None:
        growing.let_go()


def _abstract(address: str) -> str:
    return address.replace("@", "\0", 1)
