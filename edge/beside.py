"""The one process of a node that is no worker: it is started beside them, replaced when it dies, and ended after them.

Which one it is, its ``command`` says; it is given a Unix socket that listens, which the parent keeps: what waits in its queue
is answered by a successor.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edge.configuration import Snapshot
from edge.control import Message
from edge.listeners import open_unix
from edge.process import Process
from edge.shared import Page
from streamgate.core.logging import get_logger
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError

_log = get_logger("edge.beside")
_BACKLOG = 1024
_STEADY_S = 10.0  # who lived that long is replaced at once
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 5.0
_FREED_S = 3.0  # in which the socket of an earlier node must be free
_LOOK_S = 0.05
_LEAVE_S = 5.0  # in which it ends what is under way
_READY_S = 60.0  # in which it must have started
_BEAT_S = 0.5  # between two looks at whether it lives


class Beside:
    """Keeps a process of ``command`` alive, which listens at ``path``.

    ``snapshot`` gives the settings of the next one. ``heard`` is told of every change of ``serving``, ``news`` of events that it wrote
    into the store. It counts on ``page``.
    """

    def __init__(
        self,
        command: Sequence[str],
        path: Path,
        page: Page,
        telemetry: Telemetry,
        given: dict[str, object],
        snapshot: Callable[[], Snapshot],
        heard: Callable[[], None],
        news: Callable[[], None],
    ) -> None:
        self.path = path
        self.process: Process | None = None
        self._command = command
        self._page = page
        self._telemetry = telemetry
        self._given = given
        self._snapshot = snapshot
        self._heard = heard
        self._news = news
        self._listening: socket.socket | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._leaving = False
        self._reloading = False

    @property
    def serving(self) -> bool:
        """Whether there is one that serves."""
        return self.process is not None and self.process.state == "serving"

    async def start(self) -> None:
        """Open the socket, raising ``listen_failed``, and begin; for the process nobody waits."""
        self._listening = await asyncio.to_thread(self._listen)
        self._keeping = asyncio.create_task(self._keep())

    def tell(self, message: Message) -> None:
        """Tell it something, if there is one."""
        if self.process is not None:
            self.process.tell(message)

    def reload(self) -> None:
        """Have another one serve by the present settings, when this one has ended what is under way."""
        self._reloading = True
        self._leave()

    async def stop(self) -> None:
        """End it, and remove the socket."""
        self._leaving = True
        self._leave()
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        if self.process is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self.process.ended), _LEAVE_S)
            self.process.kill()
            await asyncio.shield(self.process.ended)
        if self._listening is not None:
            self._listening.close()
            await asyncio.to_thread(self.path.unlink, missing_ok=True)
            self._listening = None

    def kill(self) -> None:
        """End it at once."""
        self._leaving = True
        if self.process is not None:
            self.process.kill()

    def _listen(self) -> socket.socket:
        end = time.monotonic() + _FREED_S
        while True:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                return open_unix(str(self.path), _BACKLOG, mode=0o600)
            except OSError as error:
                # The process of a node that was killed a moment ago is about to notice.
                if error.errno != errno.EADDRINUSE or time.monotonic() >= end:
                    said = f"auth.socket: {self.path}: {error.strerror or error}"
                    raise StreamGateError("listen_failed", said) from error
            time.sleep(_LOOK_S)

    def _leave(self) -> None:
        if self.process is not None:
            self.process.leave(_LEAVE_S, 0.0, last=True)
            # It may be stopped, or hang.
            asyncio.get_running_loop().call_later(2 * _LEAVE_S, self.process.kill)

    async def _keep(self) -> None:
        wait = 0.0
        while not self._leaving:
            await asyncio.sleep(wait)
            began = time.monotonic()
            try:
                process = self.process = await Process.start(self._page, self._orders, self._command)
                process.on_serving, process.on_news = self._heard, self._news
                async with asyncio.timeout(_READY_S):
                    await process.ready()
                _log.info("the auth role serves", pid=process.pid)
            except TimeoutError:
                _log.error("the auth role does not start and is killed", pid=process.pid)
                process.kill()
            except StreamGateError as error:
                _log.error("the auth role cannot be started", code=error.code, detail=error.detail)
            if self.process is not None:
                watching = asyncio.create_task(self._watch(self.process))
                try:
                    status = await asyncio.shield(self.process.ended)
                finally:
                    watching.cancel()
                if not self._leaving and not self._reloading:
                    _log.error("the auth role died and is replaced", pid=self.process.pid, status=status)
                    self._telemetry.count("auth_deaths")
            lived = time.monotonic() - began
            steady = self._reloading or lived >= _STEADY_S
            self._reloading = False
            wait = 0.0 if steady else min(max(2 * wait, _FIRST_WAIT_S), _LONGEST_WAIT_S)
            self._heard()

    async def _watch(self, process: Process) -> None:
        """Kill it when it lives but answers nothing any more, as its loop is blocked, or it is stopped.

        As with workers, silence is counted in looks and not by a clock: a pause of the whole machine is nobody's.
        """
        while process.state == "serving":
            answer, looks = asyncio.create_task(process.ask({"do": "apply", "events": []})), 0
            try:
                while not (await asyncio.wait([answer], timeout=_BEAT_S))[0]:
                    looks += 1
                    timeout = self._snapshot().settings.server.hang_timeout
                    if timeout and looks * _BEAT_S >= timeout and process.state == "serving":
                        _log.error("the auth role hangs and is killed", pid=process.pid, silent=looks * _BEAT_S)
                        process.kill()
                        return
            finally:
                answer.cancel()
            await asyncio.sleep(_BEAT_S)

    def _orders(self, control: int, slot: int) -> tuple[bytes, list[int]]:
        assert self._listening is not None
        files = {"config": self._snapshot().descriptor, "listening": self._listening.fileno(), "control": control}
        orders = {**self._given, **files, "page": self._page.fd, "slot": slot}
        return json.dumps(orders).encode(), [*files.values(), self._page.fd]
