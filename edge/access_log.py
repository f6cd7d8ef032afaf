"""Where the lines of the access log go: among the other logs, or into a file that can be rotated."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable

from streamgate.core import logging
from streamgate.core.settings import LogSettings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.native.accesslog import AccessLog

_log = logging.get_logger("edge.access_log")
# Blocks of lines, of 64 KiB at most, that wait for a slow disk.
_MAX_WAITING = 256
_STOP_S = 2.0


def open_access_log(
    settings: LogSettings, telemetry: Telemetry, *, replacing: bool = False
) -> tuple[AccessLog | None, Callable[[], None]]:
    """The access log of the settings, if there is to be one, and what writes the last of it at the end.

    Raises ``config_invalid`` for a file that cannot be opened, unless it is for a process that is ``replacing`` a dead one.
    """
    if not settings.access:
        return None, lambda: None
    file = File(settings.access_file, telemetry, required=not replacing) if settings.access_file else None
    chosen = settings.access_format
    if chosen == "auto":
        chosen = "combined" if file is None and logging.for_people(settings) else "json"
    sink = logging.write if file is None else file.write
    log = AccessLog(sink, format=chosen, sample=settings.access_sample, whole_addresses=settings.whole_addresses)

    def close() -> None:
        log.flush()
        if file is not None:
            file.close()

    return log, close


class File:
    """Appends blocks of whole lines in a thread of its own; processes may share a file. What it does not take is counted.

    ``render`` makes of a block what is written, in that thread. Raises ``config_invalid``, which names the setting ``log.{name}_file``,
    where it cannot be opened and is ``required``; otherwise that is tried again with each block.
    """

    def __init__(
        self,
        path: str,
        telemetry: Telemetry,
        *,
        required: bool = True,
        name: str = "access",
        render: Callable[[bytes], bytes] = lambda block: block,
    ) -> None:
        self._name = name
        self._render = render
        self._path = path
        self._telemetry = telemetry
        self._blocks: queue.Queue[bytes | None] = queue.Queue(_MAX_WAITING)
        self._descriptor: int | None = None
        try:
            self._descriptor = self._open()
        except OSError as error:
            if required:
                raise StreamGateError("config_invalid", f"log.{name}_file: {error.strerror}") from error
            _log.error(f"the {name} log cannot be opened, its lines are dropped", reason=error.strerror)
        self._renamed = threading.Event()
        logging.on_reopen(self._renamed.set)
        self._thread = threading.Thread(target=self._run, name="streamgate-access", daemon=True)
        self._thread.start()

    def write(self, lines: bytes) -> None:
        """Have these written; never waits."""
        try:
            self._blocks.put_nowait(lines)
        except queue.Full:
            self._telemetry.count("log_lines_dropped", lines.count(b"\n"))

    def close(self) -> None:
        """Write what waits, for a while."""
        with contextlib.suppress(queue.Full):
            self._blocks.put(None, timeout=_STOP_S)
        self._thread.join(_STOP_S)

    def _open(self) -> int:
        # Appending: each block lands whole behind what other processes wrote. Readable by the group, as log shippers are.
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _run(self) -> None:
        while (lines := self._blocks.get()) is not None:
            try:
                block = self._render(lines)
            except Exception:
                _log.exception("lines of a log cannot be written", log=self._name)
                self._telemetry.count("log_lines_dropped", lines.count(b"\n"))
                continue
            if self._renamed.is_set() or self._descriptor is None:
                self._renamed.clear()
                self._open_again()
            try:
                while block and self._descriptor is not None:
                    block = block[os.write(self._descriptor, block) :]
            except OSError:
                pass
            if block:
                self._telemetry.count("log_lines_dropped", block.count(b"\n"))
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _open_again(self) -> None:
        # Where there is no opening it again, the old one is better than none.
        with contextlib.suppress(OSError):
            before, self._descriptor = self._descriptor, self._open()
            if before is None:
                _log.info(f"the {self._name} log is open")
            else:
                os.close(before)
