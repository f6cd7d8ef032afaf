"""Conversions of foreign containers under way: each once, a few at a time, in processes of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from streamgate.core.logging import get_logger
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError

_log = get_logger("edge.remuxes")


def _remux(source: Path, target: Path) -> None:
    # Imported when the first foreign container turns up: most nodes never see one.
    from streamgate.transcode.remux import remux_in_worker

    remux_in_worker(source, target)


def _stop_workers() -> None:
    from streamgate.transcode.remux import stop_workers

    stop_workers()


class Remuxes:
    """A queue of conversions. A target's name tells the bytes it is made of, so a failure that no retry can help is final.

    Another one is told to the next who asks, for whom it is tried again.
    """

    def __init__(
        self,
        at_once: int,
        telemetry: Telemetry,
        remux: Callable[[Path, Path], object] = _remux,
        stop: Callable[[], None] = _stop_workers,
    ) -> None:
        self._executor = ThreadPoolExecutor(at_once, thread_name_prefix="streamgate-remux")
        self._telemetry = telemetry
        self._remux = remux
        self._stop = stop
        self._lock = threading.Lock()
        self._under_way: dict[Path, Future[None]] = {}
        self._failed: dict[Path, StreamGateError] = {}

    def submit(self, source: Path, target: Path) -> None:
        """Convert ``source`` to ``target``, unless that is under way; raises the error with which it failed before."""
        with self._lock:
            failure = self._failed.get(target)
            if (failure is None or failure.retryable) and target not in self._under_way:
                self._failed.pop(target, None)
                self._under_way[target] = self._executor.submit(self._run, source, target)
            if failure is not None:
                raise StreamGateError(failure.code, failure.detail)

    def wait(self) -> None:
        """Wait for what is under way now; blocking."""
        with self._lock:
            under_way = list(self._under_way.values())
        wait(under_way)

    def close(self) -> None:
        """Begin no more conversions, and end those under way."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        if self._under_way:
            self._stop()

    def _run(self, source: Path, target: Path) -> None:
        result = "ok"
        try:
            self._remux(source, target)
        except StreamGateError as error:
            result = error.code
            _log.warning("conversion failed", source=source.name, code=error.code, detail=error.detail)
            with self._lock:
                self._failed[target] = error
        except Exception:
            result = "remux_failed"
            _log.exception("conversion failed", source=source.name)
            with self._lock:
                self._failed[target] = StreamGateError("remux_failed", f"{source.name} could not be converted")
        finally:
            with self._lock:
                self._under_way.pop(target, None)
            self._telemetry.count("remuxes", result=result)
