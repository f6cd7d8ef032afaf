"""Logs as events: structlog for our own, and the standard library's loggers through the same processors."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import TextIO

from streamgate.core.settings import LogSettings

# structlog imports rich where it finds it, for tracebacks that nobody wants here (see below): a tenth of a second and 8 MB in
# each process of a node.
_hidden = "structlog" not in sys.modules and "rich" not in sys.modules
if _hidden:
    sys.modules["rich"] = None  # type: ignore[assignment]
try:
    import structlog
finally:
    if _hidden:
        del sys.modules["rich"]

_reopened: list[Callable[[], None]] = []
# Lines that wait for a slow reader of our logs; further ones are dropped, for requests matter more.
_MAX_WAITING = 10_000
_STOP_S = 2.0


class _Background(logging.Handler):
    """Writes lines in a thread: a full pipe must not stop the event loop."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(_MAX_WAITING)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="streamgate-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        self.write(self.format(record))

    def write(self, text: str) -> None:
        """Write a whole line, or several, without a newline at the end, that somebody else has formatted."""
        try:
            self._lines.put_nowait(text)
        except queue.Full:
            self._dropped += text.count("\n") + 1

    def stop(self) -> None:
        """Write what waits, for a while."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=_STOP_S)
        self._thread.join(_STOP_S)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            if self._dropped:
                self._dropped, dropped = 0, self._dropped
                line += "\n" + json.dumps({"event": "log lines dropped", "lines": dropped})
            # A reader that went away must not end the thread.
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(line + "\n")
                self._stream.flush()


def configure(settings: LogSettings, stream: TextIO | None = None) -> Callable[[], None]:
    """Send all logs of the process to ``stream`` (standard error), in the format of the settings.

    Returns what to call at the end, so that nothing is left unwritten.
    """
    # Without a standard error there is nobody to tell.
    out = stream or sys.stderr or open(os.devnull, "w")
    as_json = not for_people(settings, out)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.typing.Processor]
    if as_json:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # Not rich's tracebacks: they read source files, which is too slow for an event loop.
        plain = structlog.dev.plain_traceback
        last = [structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=plain)]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
    )
    handler = _Background(out)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    return handler.stop


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module; it may be asked for before :func:`configure`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def for_people(settings: LogSettings, stream: TextIO | None = None) -> bool:
    """Whether logs look as people like them, and not as machines do."""
    out = stream or sys.stderr
    return settings.format == "console" or (settings.format == "auto" and out is not None and out.isatty())


def write(lines: bytes) -> None:
    """Write whole lines, formatted already, among the others; they are lost where :func:`configure` was not called."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Background):
            handler.write(lines.decode("utf-8", "replace").rstrip("\n"))


def on_reopen(reopen: Callable[[], None]) -> None:
    """Have ``reopen`` called when log files were renamed and are to be opened anew (SIGUSR1)."""
    _reopened.append(reopen)


def reopen() -> None:
    """Open all log files anew."""
    for each in _reopened:
        each()
