"""Matroska, WebM, MPEG-TS and odd MOVs become an MP4 once, in a process of its own.

``python -m streamgate.transcode.remux SOURCE TARGET`` prints one line of JSON: ``{"findings": […]}`` and exit status 0,
or ``{"code": …, "detail": …}`` and 1. libav runs on files of strangers there, with limits on memory, time and output,
and what it does to the process does nothing to the caller, who does not even import it.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamgate.errors import CODES, Finding, StreamGateError

DEADLINE_S = 1800.0
MAX_BYTES = 256 << 30
MAX_MEMORY = 4 << 30  # address space of the worker in bytes; libav's probing and our tables need a small part of it
GRACE_S = 10  # beyond the deadline, for a call into libav that does not come back

_workers: set[subprocess.Popen[bytes]] = set()
_lock = threading.Lock()


def remux_in_worker(
    source: Path, target: Path, *, deadline_s: float = DEADLINE_S, max_bytes: int = MAX_BYTES
) -> tuple[Finding, ...]:
    """Like :func:`remux`, in a process of its own; blocks until that has ended. Dies with the caller.

    Raises what :func:`remux` raises; a worker that crashed or hung is ``remux_failed``.
    """
    command = [sys.executable, "-m", __name__, os.path.abspath(source), os.path.abspath(target)]
    command += ["--deadline", str(deadline_s), "--max-bytes", str(max_bytes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0) as worker:
        with _lock:
            _workers.add(worker)
        try:
            # Not communicate(): that would close stdin, which is how the worker notices that its caller is gone.
            assert worker.stdout is not None
            said = worker.stdout.read()
            status = worker.wait()
        finally:
            with _lock:
                _workers.discard(worker)
            worker.kill()
    try:
        answer = json.loads(said)
    except ValueError:
        raise StreamGateError("remux_failed", f"{source.name}: the worker ended with status {status}") from None
    if answer.get("code") in CODES:
        raise StreamGateError(answer["code"], answer["detail"])
    return tuple(Finding(**finding) for finding in answer["findings"])


def stop_workers() -> None:
    """End the workers that this process started; their callers get ``remux_failed``."""
    with _lock:
        for worker in _workers:
            worker.kill()


def remux(source: Path, target: Path, *, deadline_s: float, max_bytes: int) -> tuple[Finding, ...]:
    """Copy the tracks of ``source`` into the MP4 ``target``; returns why tracks were left out.

    The file is written aside and renamed: there is never half a ``target``. What was left out is told beside it, in ``.json``. Several processes may want the same one at
    a time; one works, the others wait. ``deadline_s`` is in seconds, ``max_bytes`` bounds the sum of all packets.
    Raises ``remux_failed``, ``source_empty``, ``source_not_found``, ``source_unreadable``, ``output_failed``.
    """
    from streamgate.transcode.streamcopy import copy_streams

    deadline = time.monotonic() + deadline_s
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _claimed(target, deadline) as aside:
            if aside is None:
                return ()
            findings = copy_streams(source, aside, deadline=deadline, max_bytes=max_bytes)
            descriptor = os.open(aside, os.O_RDONLY)
            try:
                os.fsync(descriptor)  # a crash must not leave a name on bytes that never reached the disk
            finally:
                os.close(descriptor)
            if findings:
                # Before the target, so that whoever finds that finds these as well; open_asset() reads them.
                told = [{"code": f.code, "subject": f.subject, "detail": f.detail} for f in findings]
                target.with_suffix(".json").write_text(json.dumps(told), encoding="utf-8")
            os.replace(aside, target)
            return findings
    except OSError as error:
        raise StreamGateError("output_failed", f"{target.name}: {error.strerror or error}") from error


@contextmanager
def _claimed(target: Path, deadline: float) -> Iterator[Path | None]:
    """The path to write to, ours alone until the block ends; None where another process finished ``target`` meanwhile.

    The lock is on the file itself, so a killed worker's remains are simply overwritten by the next.
    """
    aside = target.with_name(f".{target.name}.part")
    while True:
        descriptor = os.open(aside, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _wait_for_lock(descriptor, target, deadline)
            mine = os.fstat(descriptor)
            if _is(target, mine):
                yield None
                return
            if not _is(aside, mine):  # the one who had it failed, and took it away
                continue
            try:
                yield aside
            finally:
                if _is(aside, mine):
                    aside.unlink()
            return
        finally:
            os.close(descriptor)


def _wait_for_lock(descriptor: int, target: Path, deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StreamGateError("remux_failed", f"{target.name}: another worker has it for too long") from None
            time.sleep(0.05)


def _is(path: Path, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), status)
    except FileNotFoundError:
        return False


def _limit(deadline_s: float, max_bytes: int) -> None:
    """Walls around libav: address space, size of a file, and an alarm that ends the process where it hangs."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ceiling = max_bytes + max_bytes // 8 + (1 << 20)  # tracks, and moov
    resource.setrlimit(resource.RLIMIT_FSIZE, (ceiling, ceiling))
    signal.setitimer(signal.ITIMER_REAL, deadline_s + GRACE_S)


def _die_with_caller() -> None:
    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: list[str]) -> int:
    """The worker."""
    import argparse

    parser = argparse.ArgumentParser(prog="streamgate.transcode.remux")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--deadline", type=float, default=DEADLINE_S, help="seconds")
    parser.add_argument("--max-bytes", type=int, default=MAX_BYTES)
    given = parser.parse_args(arguments)
    if not sys.stdin.isatty():
        _die_with_caller()
    _limit(given.deadline, given.max_bytes)
    try:
        findings = remux(given.source, given.target, deadline_s=given.deadline, max_bytes=given.max_bytes)
    except StreamGateError as error:
        print(json.dumps({"code": error.code, "detail": error.detail}))
        return 1
    except MemoryError:
        print(json.dumps({"code": "remux_failed", "detail": f"{given.source.name}: takes too much memory"}))
        return 1
    print(json.dumps({"findings": [{"code": f.code, "subject": f.subject, "detail": f.detail} for f in findings]}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
