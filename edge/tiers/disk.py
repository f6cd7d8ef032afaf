"""The disk tier: one file an object, shared by all workers of the node.

To look an object up is to open its file; no index is asked. An object comes to be by a rename, and what damages it
later is noticed: the whole body is read off the loop when a file is first used after a start, and by the scrub.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from edge.entries import Entry
from edge.flights import Flights
from edge.purges import Purges
from edge.threads import Patient, Pool
from edge.tiers import objects
from edge.tiers.claims import Claim, Claims
from edge.tiers.ledger import Ledger
from edge.tiers.objects import Corrupt, FileBody
from edge.tiers.tier import Terms
from streamgate.core.logging import get_logger
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError

# Part of the folder's name: another layout of files begins anew.
_FORMAT = "1"
_TRIES = 4
_REMEMBERED = 65536
_log = get_logger("edge.disk")


class DiskTier:
    """Objects in ``folder``, at most ``budget`` bytes of them; 0: no disk tier.

    Where the disk cannot be written, nothing more is stored until ``retry`` seconds have passed; what is there is served.
    One that takes longer than ``patience`` seconds for one call is left alone for as long. ``direct``: what is large is
    written past the page cache, and read into it when it is first asked for.
    """

    name = "disk"

    def __init__(
        self,
        folder: Path,
        budget: int,
        pool: Pool,
        telemetry: Telemetry,
        *,
        retry: float = 30.0,
        patience: float = 4.0,
        direct: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder / "cache" / _FORMAT
        self.budget = budget
        self._pool = pool
        self._telemetry = telemetry
        self._retry = retry
        self._direct = direct
        self._clock = clock
        self._off_until = float("-inf")
        self._ledger: Ledger | None = None
        self._making = threading.RLock()  # making it may fail
        # What viewers wait for.
        self.threads = Patient(pool, patience, retry, lambda: self._off("it takes too long"), clock)
        self._lookups = Flights(self.threads)
        self._keeps = False
        self._bytes = self._objects = 0
        self._verified: set[str] = set()
        self._claims: Claims | None = None
        # Those that this process leads, by key: a purge ends them, so that what it is too late for is never published.
        self._leading: weakref.WeakSet[Claim] = weakref.WeakSet()
        self._publishing = threading.Lock()
        self.purges = Purges()
        # Told of an open object that fails: who else keeps it forgets it.
        self.on_loss: Callable[[str, FileBody], None] = lambda key, body: None
        # Where this process tells others how far its growing files are.
        self.address = ""
        # Told by one worker, for workers' numbers are added up.
        telemetry.watch("disk_bytes", lambda: self._bytes if self._ledger is not None and self._keeps else 0)
        telemetry.watch("disk_objects", lambda: self._objects if self._ledger is not None and self._keeps else 0)
        telemetry.watch("disk_writes_off", lambda: float(budget > 0 and not self.writable))

    async def start(self) -> None:
        """Read what is there; a disk that cannot be written turns writes off."""
        if self.budget:
            with contextlib.suppress(StreamGateError):
                await self.threads.run(self._ready)

    def close(self) -> None:
        """Forget the folder; the objects stay."""
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            ledger.close()

    @property
    def writable(self) -> bool:
        """Whether objects are stored at present."""
        return self.budget > 0 and self._clock() >= self._off_until

    async def lookup(self, key: str) -> Entry | None:
        """The object called ``key``, its body checked if this is the first use since the node started."""
        if not self.budget or self.threads.stalled:
            return None
        try:
            return await self._lookups.join(key, self._open, key)
        except StreamGateError as error:
            if error.code != "cache_failed":
                raise
            return None

    async def on_hit(self, key: str, entry: Entry, terms: Terms) -> None:
        """A slower tier had it: its body, if it is in memory, is kept here too."""
        await self.on_miss(key, entry, terms)

    async def on_miss(self, key: str, entry: Entry, terms: Terms) -> bool:
        """It was made: keep it. Bodies that are yet to be made get here by a flight."""
        if isinstance(entry.body, bytes):
            with contextlib.suppress(StreamGateError):
                return await self.threads.run(self.keep, key, entry, entry.body)
        return isinstance(entry.body, FileBody)

    async def remove(self, key: str) -> bool:
        """Throw the object out, in all workers; whether it was there."""
        return bool(self.budget) and await self._pool.run(self.discard, objects.digest_of(key))

    async def claimed(self, key: str, size: int) -> Claim | Entry | None:
        """As :meth:`claim`; None also where that takes too long."""
        try:
            return await self.threads.run(self.claim, key, size)
        except StreamGateError as error:
            if error.code != "cache_failed":
                raise
            return None

    # --- what follows blocks

    def keep(self, key: str, entry: Entry, body: bytes) -> bool:
        """Store an object whose body is ``body``; whether it is stored. Blocking; raises nothing."""
        return self.writable and self._write(key, entry, body)

    def get(self, key: str) -> bytes | None:
        """The whole body of an object; blocking."""
        entry = self._open(key) if self.budget else None
        return entry.body.read(0, entry.size) if entry is not None and isinstance(entry.body, FileBody) else None

    def discard(self, digest: str) -> bool:
        """Throw an object out; blocking."""
        try:
            return self._ledger is not None and self._ledger.remove(digest)
        except OSError as error:
            self.failed(error)
            return False

    def claim(self, key: str, size: int) -> Claim | Entry | None:
        """The right to make the object called ``key``, with room for ``size`` bytes, or who has it; or the object itself,
        which is there by now. None where nothing can be written. Blocking; raises nothing."""
        if not self.writable or not self._ready() or self._claims is None:
            return None
        path, number = self._path(key), self.purges.number
        try:
            for _ in range(_TRIES):
                claim, entry = self._claims.claim(path.name, path, number), None
                if claim is None:
                    entry = self._open(key)
                    if entry is not None and not entry.stale:
                        return entry
                if entry is not None:
                    # It stays until what replaces it is whole.
                    claim = self._claims.claim(path.name, None, number)
                if claim is None:
                    continue
                if claim.leads:
                    with self._publishing:
                        self._leading.add(claim)
                    return claim if self._reserve(claim, size) else None
                # What another process began before a purge that it has yet to hear of is not ours to follow.
                return claim if not self.purges.since(key, float("inf"), claim.number) else None
        except BlockingIOError:  # too many want it; that is not the disk's fault
            pass
        except OSError as error:
            self.failed(error)
        return None

    def _reserve(self, claim: Claim, size: int) -> bool:
        try:
            claim.reserve(size)
        except OSError as error:
            claim.give_up()
            self.failed(error)
            return False
        return True

    def commit(self, claim: Claim, key: str, entry: Entry, crc: int) -> bool:
        """Turn the file that was claimed, now whole, into an object; whether it is one. Blocking; raises nothing.

        It is none where ``key`` was purged after it was begun.
        """
        page = objects.header(key, entry, crc, claim.number)
        try:
            if page is None or self._ledger is None:
                return False
            os.pwrite(claim.fd, page, 0)
            target = self._path(key)

            def publish() -> None:
                try:
                    os.rename(claim.path, target)
                except FileNotFoundError:
                    target.parent.mkdir(exist_ok=True)
                    os.rename(claim.path, target)
                claim.published()

            with self._publishing:
                if claim.given_up or self.purges.since(key, entry.born, claim.number):
                    return False
                return self._ledger.add(target.name, objects.HEADER + entry.size, publish)
        except OSError as error:
            self.failed(error)
            return False

    def abandon(self, keys: Iterable[str]) -> None:
        """Give up what this process is making of these, which were purged: who sends from it goes on. Blocking."""
        digests = {objects.digest_of(key) for key in keys}
        with self._publishing:
            for claim in [claim for claim in self._leading if claim.path.name in digests]:
                claim.give_up()

    def expel(self, paths: Iterable[str]) -> int:
        """Throw out the objects in these files that were purged hard; how many. Blocking."""
        gone = 0
        for path in paths:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                continue
            try:
                key, entry = objects.read(fd)
            except Corrupt:  # the scrub's business
                os.close(fd)
                continue
            assert isinstance(entry.body, FileBody)
            if self.purges.of(key, entry.body.number, entry.made) == "hard":
                gone += self.discard(os.path.basename(path))
        return gone

    def failed(self, error: OSError) -> None:
        """The disk did not do what was asked: no more writes for a while."""
        if isinstance(error, FileNotFoundError) and self._ledger is not None:
            # Somebody removed the folder under us: it is made anew, by whoever needs it first.
            _log.warning("the folder of the disk tier has gone and is made anew")
            with self._making:
                self.close()
            return
        self._off(os.strerror(error.errno or 0))

    def _off(self, reason: str) -> None:
        if self.writable:
            _log.warning("the disk tier takes no writes", reason=reason, retry=self._retry)
            self._telemetry.count("disk_failures")
        self._off_until = self._clock() + self._retry

    def corrupt(self, digest: str, reason: str) -> None:
        """Throw out an object that is not what was written. Blocking."""
        _log.warning("a corrupt object was thrown out", object=digest, reason=reason)
        self._telemetry.count("disk_corrupt")
        if not self.discard(digest):
            with contextlib.suppress(OSError):
                self._object(digest).unlink()

    def look(self) -> int:
        """A number that changes whenever a worker throws an object out that fails, or is told to; blocking."""
        ledger = self._ledger
        if ledger is None:
            return 0
        self._bytes, self._objects = ledger.bytes, len(ledger)
        return ledger.removed

    def _lost(self, key: str, body: FileBody) -> None:
        """An open object does not give its bytes any more: a miss, from now on and for all."""
        self.on_loss(key, body)
        # By now there may be a good one in its place.
        if not body.gone():
            self.corrupt(body.digest, "it ended too early, or could not be read, while it was being sent")

    def keeper(self) -> bool:
        """Whether this worker looks after the tier for all: the first that asks, as long as it lives. Blocking."""
        ledger = self._ledger
        if ledger is None:
            return False
        self._keeps = ledger.keep()
        if self._keeps and self._claims is not None:
            self._claims.sweep()
        return self._keeps

    def files(self) -> list[str]:
        """Paths of all objects; blocking."""
        found = []
        with contextlib.suppress(OSError):
            for folder in os.scandir(self.folder / "objects"):
                found += [file.path for file in os.scandir(folder.path)]
        return found

    def keep_hot(self, body: FileBody) -> None:
        """Note that a worker holds the object open for its viewers."""
        if self._ledger is not None:
            self._ledger.hit(body.digest, 1)

    def _ready(self) -> bool:
        """Make the folder and the ledger, if that is still to be done."""
        with self._making:
            return self._ledger is not None or self._make()

    def _make(self) -> bool:
        try:
            for name in ("objects", "fills"):
                (self.folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
            for number in range(256):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(self.folder / "objects" / f"{number:02x}")
            claims = Claims(self.folder / "fills", self.address, direct=self._direct)
            ledger = Ledger(self.folder, self.budget, claims.clear)
        except OSError as error:
            self.failed(error)
            return False
        self._ledger, self._claims = ledger, claims
        return True

    def _open(self, key: str) -> Entry | None:
        path = self._path(key)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            entry = objects.read(fd, key)[1]
        except Corrupt as corrupt:
            os.close(fd)
            self.corrupt(path.name, str(corrupt))
            return None
        assert isinstance(entry.body, FileBody)
        verdict = self.purges.of(key, entry.body.number, entry.made)
        if verdict == "hard":
            self.discard(path.name)
            return None
        entry = replace(entry, stale=verdict == "soft")
        assert isinstance(entry.body, FileBody)
        try:
            self._verify(entry.body)
        except Corrupt as corrupt:
            self.corrupt(path.name, str(corrupt))
            return None
        entry.body.load()
        entry.body.on_failure = partial(self._lost, key)
        if self._ledger is not None:
            self._ledger.hit(path.name)
        return entry

    def _verify(self, body: FileBody) -> None:
        """Read the body unless somebody did since the node started: the file's time says so, to all workers."""
        fresh = self._ledger is not None and os.fstat(body.fd).st_mtime_ns >= self._ledger.booted
        if fresh or body.digest in self._verified:
            return
        body.verify()
        with contextlib.suppress(OSError):
            os.utime(body.fd)
        # Where no time can be set, this worker knows at least.
        if len(self._verified) == _REMEMBERED:
            self._verified.clear()
        self._verified.add(body.digest)

    def _write(self, key: str, entry: Entry, body: bytes) -> bool:
        claim = self.claim(key, len(body))
        if not isinstance(claim, Claim) or not claim.leads:
            return False
        try:
            claim.write(body, 0)
        except OSError as error:
            self.failed(error)
            return False
        else:
            return self.commit(claim, key, entry, zlib.crc32(body))
        finally:
            claim.give_up()

    def _path(self, key: str) -> Path:
        return self._object(objects.digest_of(key))

    def _object(self, digest: str) -> Path:
        return self.folder / "objects" / digest[:2] / digest
