"""The parent of a node's workers: it opens the sockets, starts and replaces workers, and passes on what they must know.

It serves nothing itself but the operator's socket. Its listening sockets live as long as it does, so that what waits in
the queue of a dead worker is served by that worker's successor.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from edge import ceilings
from edge.admin import Admin
from edge.admin_access import Access
from edge.beside import Beside
from edge.configuration import Configuration, Snapshot
from edge.control import Message
from edge.feed import Feed
from edge.freshness import Freshness
from edge.listeners import Listeners, apply_options, listen_all
from edge.orders import Orders
from edge.process import Process
from edge.purges import Purge
from edge.rates import Rates
from edge.shared import Page
from edge.site import joined
from edge.team import Team
from edge.warm_orders import Order
from edge.warmups import Warmups
from edge.watch import Watch
from streamgate.core import logging
from streamgate.core.lifecycle import raise_file_limit, stop_signals
from streamgate.core.settings import Settings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.storage.kv.sqlite import SqliteStore

_log = logging.get_logger("edge.parent")
_STORE = "state.sqlite"
# Teams that still end what they began; a further reload waits for the first of them.
_MOST_LEAVING = 3
_CLOSE_S = 2.0  # in which workers take what waits in the queues, before these are closed
_KILL_S = 5.0  # beyond the deadline


def run(configuration: Configuration, root: str, *, announce: Callable[[str], None], beside: Sequence[str] = ()) -> int:
    """Serve the assets of ``root`` (a path, or s3://bucket/prefix) by ``server.workers`` processes until SIGTERM or SIGINT; returns the exit code.

    ``announce`` is called with the server's address (no trailing slash) once all workers serve. SIGHUP reloads settings
    and code. A second signal ends everything at once. ``beside`` are the interpreter's arguments for the auth role, whose
    process is kept alive where the settings want it. Raises StreamGateError with whatever keeps it from starting.
    """
    snapshot = configuration.read()
    stop_logging = logging.configure(snapshot.settings.log)
    try:
        raise_file_limit()
        return asyncio.run(_run(configuration, snapshot, root, announce, beside))
    finally:
        stop_logging()


async def _run(
    configuration: Configuration, snapshot: Snapshot, root: str, announce: Callable[[str], None], beside: Sequence[str]
) -> int:
    settings = snapshot.settings
    listeners = listen_all(settings, _seats(settings))
    try:
        store_path = settings.server.data_folder / _STORE
        store = await SqliteStore.open(store_path)
        try:
            parent = Parent(configuration, snapshot, root, listeners, store, store_path, beside)
            await parent.run(announce)
        finally:
            await store.close()
    finally:
        listeners.close()
    return 0


class Parent:
    """A node: its sockets, its store, and the teams of workers that serve, or end."""

    def __init__(
        self,
        configuration: Configuration,
        snapshot: Snapshot,
        root: str,
        listeners: Listeners,
        store: SqliteStore,
        store_path: Path,
        beside: Sequence[str] = (),
    ) -> None:
        self._configuration = configuration
        self._snapshot = snapshot
        self._root = root
        self._listeners = listeners
        self._store = store
        self._store_path = store_path
        self._page = Page.create()
        slot = self._page.take()
        self._page.own(slot, os.getpid())
        self.telemetry = Telemetry(cells=self._page.cells(slot), node=self._page)
        self._beside = self._make_beside(beside) if beside and snapshot.settings.auth.enabled else None
        self._feed = Feed(store, self._all)
        self._processes: set[Process] = set()
        self._purging = _purging(snapshot)
        self._warmups = Warmups(lambda: list(self._processes), lambda: self._draining)
        self._watch = Watch(
            self._page, lambda: self._processes, self.telemetry, lambda: self._snapshot.settings.server.hang_timeout
        )
        self._freshness = Freshness(None)
        self._teams: list[Team] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._generation = 0
        self._most_connections = 0
        self._access: Access | None = None
        self._admin_url = ""
        self._draining = False
        self._since = time.time()
        self._terminal = os.isatty(0)
        self._reload_asked = asyncio.Event()
        self._stop_asked = asyncio.Event()

    async def run(self, announce: Callable[[str], None]) -> None:
        """Serve until a signal or an operator says stop."""
        settings = self._snapshot.settings
        url = self._listeners.url
        admin = Admin(self, settings.admin_socket(int(url.rpartition(":")[2])))
        self._access = Access(self, settings.admin) if settings.admin.listen else None
        site = joined(settings, self._store, self._feed, self.telemetry, self._tell_all)
        with stop_signals(self._leave_at_once) as self._stop_asked, self._signals():
            async with site as self._freshness:
                await self._feed.catch_up()
                await admin.start()
                try:
                    if self._beside is not None:
                        await self._beside.start()
                    if self._access is not None:
                        self._admin_url = await self._access.start()
                    await self._until_stopped(self._start(self._snapshot))
                    if self._teams:
                        _log.info("listening", url=url, workers=len(self._teams[0].members))
                        announce(url)
                        await self._until_stopped(self._follow_reloads(), self._feed.run(), self._watch.run())
                    await self._stop()
                finally:
                    self._kill()
                    if self._beside is not None:
                        await self._beside.stop()
                    await self._warmups.close()
                    await admin.stop()
                    if self._access is not None:
                        await self._access.stop()

    def status(self) -> dict[str, object]:
        """What an operator may want to see."""
        return {
            "pid": os.getpid(),
            "state": "draining" if self._draining else self._teams[0].state if self._teams else "starting",
            "empty_seats": self._teams[0].vacancies() if self._teams else [],
            "url": self._listeners.url,
            "admin_url": self._admin_url,
            "since": int(self._since),
            "generation": self._teams[0].generation if self._teams else 0,
            "revocations": self._feed.held.revocations,
            "site": self._freshness.problem() or ("" if self._freshness.max_age is None else "followed"),
            "auth": None
            if self._beside is None or self._beside.process is None
            else {"pid": self._beside.process.pid, "state": self._beside.process.state},
            "max_connections": self._most_connections,
            "workers": [
                {
                    "pid": each.pid,
                    "slot": each.slot,
                    "state": each.state,
                    "age": round(time.monotonic() - each.since, 1),
                    "connections": int(self._page.gauge(each.slot, "connections")),
                }
                for each in sorted(self._processes, key=lambda each: each.since)
            ],
        }

    def reload(self) -> None:
        """Have settings and code reloaded; several wishes at once are one."""
        self._reload_asked.set()

    def stop(self) -> None:
        """Have it end gracefully."""
        self._stop_asked.set()

    async def revoke(self, kind: str, subject: bytes, exp: int | None) -> None:
        """See :meth:`edge.feed.Feed.revoke`."""
        await self._feed.revoke(kind, subject, exp, self._snapshot.settings.revocation)
        _log.info("revoked", kind=kind, exp=exp)

    async def purge(self, purge: Purge) -> None:
        """See :meth:`edge.feed.Feed.purge`; raises ``rate_limited`` too."""
        if self._purging.too_many():
            raise StreamGateError("rate_limited", "limits.purges: more purges than are allowed")
        self._purging.add()
        await self._feed.purge(purge, self._snapshot.settings.purge)
        _log.info("purged", kind=purge.kind, subject=purge.subject, soft=purge.soft)

    def warm(self, order: Order) -> AsyncIterator[Message]:
        """See :meth:`edge.warmups.Warmups.warm`."""
        _log.info("warm-up", asset=order.asset, renditions=order.renditions, limit=order.limit)
        return self._warmups.warm(order)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        loop.add_signal_handler(signal.SIGUSR1, self._reopen_logs)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGHUP)
            loop.remove_signal_handler(signal.SIGUSR1)

    async def _until_stopped(self, *works: Coroutine[Any, Any, None]) -> None:
        """Do these until all have ended, or it shall stop; raises what one of them raises."""
        asked = asyncio.create_task(self._stop_asked.wait())
        tasks = {asyncio.create_task(work) for work in works}
        left = set(tasks)
        try:
            while left and not asked.done():
                done, _ = await asyncio.wait({asked, *left}, return_when=asyncio.FIRST_COMPLETED)
                left -= done
                for task in done & tasks:
                    task.result()
        finally:
            for each in (asked, *tasks):
                each.cancel()
            await asyncio.gather(asked, *tasks, return_exceptions=True)

    async def _start(self, snapshot: Snapshot) -> None:
        """Start a team with these settings; raises what keeps it from serving."""
        settings = snapshot.settings
        seats = _seats(settings)
        most = ceilings.connections(settings, seats)
        self._listeners.extend(seats, settings.server)
        for row in self._listeners.rows:
            for listening in row:
                apply_options(listening, settings.server)
        self._generation += 1
        team = Team(self._generation, seats, partial(self._start_worker, snapshot, seats), self.telemetry)
        await team.start()
        self._teams.append(team)
        self._most_connections = most

    async def _start_worker(self, snapshot: Snapshot, seats: int, seat: int, replacing: bool) -> Process:
        plain, encrypted = zip(*self._listeners.shared_out(seats), strict=True)

        def orders(control: int, slot: int) -> tuple[bytes, list[int]]:
            given = Orders(
                root=self._root,
                store=str(self._store_path),
                config=snapshot.descriptor,
                limits=snapshot.limits,
                overrides=self._configuration.overrides,
                listening=_descriptors(plain),
                encrypted=_descriptors(encrypted),
                seat=seat,
                certificate=snapshot.certificate,
                key=snapshot.key,
                control=control,
                page=self._page.fd,
                slot=slot,
                workers=seats,
                replacing=replacing,
                auth="" if self._beside is None else str(self._beside.path),
            )
            return given.encode(), given.descriptors

        process = await Process.start(self._page, orders)
        process.tell(self._freshness.message())
        process.tell(self._auth())
        self._processes.add(process)
        process.ended.add_done_callback(lambda _: self._processes.discard(process))
        if self._draining:
            process.tell({"do": "drain"})
        return process

    async def _follow_reloads(self) -> None:
        while True:
            await self._reload_asked.wait()
            while len(self._ending) >= _MOST_LEAVING:
                await asyncio.wait(self._ending, return_when=asyncio.FIRST_COMPLETED)
            self._reload_asked.clear()
            try:
                await self._reload(await asyncio.to_thread(self._configuration.read))
            except StreamGateError as error:
                self.telemetry.count("reloads", result=error.code)
                _log.error("the reload failed; it serves on as before", code=error.code, detail=error.detail)
            else:
                self.telemetry.count("reloads", result="ok")
                _log.info("reloaded", generation=self._generation)

    async def _reload(self, snapshot: Snapshot) -> None:
        """Let a new team serve from the same sockets, and the old one end what it began."""
        try:
            await self._start(snapshot)
        except BaseException:
            snapshot.close()
            raise
        if self._access is not None:
            try:
                await asyncio.to_thread(self._access.renew, snapshot.settings.admin)
            except StreamGateError as error:
                _log.error("the operators' address keeps its certificate", code=error.code, detail=error.detail)
        before, self._snapshot = self._snapshot, snapshot
        self._purging = _purging(snapshot)
        if self._beside is not None:
            self._beside.reload()
        drain = snapshot.settings.drain
        team = self._teams.pop(0)
        team.leave(drain.deadline, drain.idle, last=False)
        ending = asyncio.create_task(self._end(team, drain.deadline + drain.idle))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        ending.add_done_callback(lambda _: before.close())

    async def _stop(self) -> None:
        """The end: not ready, then no longer accepting, then gone."""
        drain = self._snapshot.settings.drain
        _log.info("stopping", delay=drain.delay, deadline=drain.deadline)
        self._draining = True
        self._tell_all({"do": "drain"})
        # Whoever is still served may be revoked meanwhile.
        following = asyncio.create_task(self._feed.run())
        await asyncio.sleep(drain.delay)
        processes = list(self._processes)
        for team in self._teams:
            team.leave(drain.deadline, 0.0, last=True)
        closing = [asyncio.create_task(process.closed.wait()) for process in processes]
        if closing:
            await asyncio.wait(closing, timeout=_CLOSE_S)
        self._listeners.close()
        await asyncio.gather(*(self._end(team, drain.deadline) for team in self._teams), *self._ending)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        _log.info("stopped", connections_cut=sum(process.cut for process in processes))

    async def _end(self, team: Team, deadline: float) -> None:
        """Wait until a team has gone that was told to leave; kill what is left of it after the deadline."""
        try:
            async with asyncio.timeout(deadline + _KILL_S):
                await team.ended()
        except TimeoutError:
            _log.error("workers did not end in time and are killed", generation=team.generation)
            await team.kill()

    def _hang_up(self) -> None:
        """SIGHUP is an operator's wish to reload, or it tells that the terminal has gone, and who had started it with it."""
        if self._terminal and not os.isatty(0):
            self.stop()
        else:
            self.reload()

    def _reopen_logs(self) -> None:
        logging.reopen()
        self._tell_all({"do": "reopen"})

    def _all(self) -> list[Process]:
        """The processes that there are."""
        beside = None if self._beside is None else self._beside.process
        return [*self._processes, *([] if beside is None else [beside])]

    def _tell_all(self, message: Message) -> None:
        for process in self._all():
            process.tell(message)

    def _auth(self) -> Message:
        """What workers hear of the auth role."""
        return {"do": "auth", "away": self._beside is not None and not self._beside.serving}

    def _make_beside(self, command: Sequence[str]) -> Beside:
        settings = self._snapshot.settings
        path = settings.auth_socket(int(self._listeners.url.rpartition(":")[2]))
        given: dict[str, object] = {
            "root": self._root,
            "store": str(self._store_path),
            "overrides": self._configuration.overrides,
        }

        def heard() -> None:
            for process in self._processes:
                process.tell(self._auth())
            assert self._beside is not None
            self._beside.tell(self._freshness.message())

        def news() -> None:
            self._feed.look()

        return Beside(command, path, self._page, self.telemetry, given, lambda: self._snapshot, heard, news)

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()

    def _leave_at_once(self, status: int) -> None:
        self._kill()
        if self._beside is not None:
            self._beside.kill()
        os._exit(status)


def _descriptors(seats: Iterable[list[socket.socket]]) -> list[list[int]]:
    return [[each.fileno() for each in seat] for seat in seats]


def _seats(settings: Settings) -> int:
    return settings.server.workers or len(os.sched_getaffinity(0))


def _purging(snapshot: Snapshot) -> Rates:
    limits = snapshot.settings.limits
    return Rates(limits.purges, limits.burst_purges)
