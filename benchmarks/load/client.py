"""Building the load client, starting it, and reading its report."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from pathlib import Path

SOURCE = Path(__file__).with_name("load.c")
BUSY = 0.9  # of a core: beyond it the client may be what is measured
_FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra")
_LIBRARIES = ("-lssl", "-lcrypto", "-lm")
_GRACE_S = 10.0  # to connect, to end and to tell, beyond the seconds asked for


class LoadError(Exception):
    """The client could not be built or did not run; what servers do wrong is in its report."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked for, and how long the answer's body must be; -1 is any length.

    ``header``, a line, and ``body`` are sent with it; neither has a tab or a line end in it.
    """

    path: str
    length: int = -1
    header: str = ""
    body: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What one run counted between warm-up and end. Seconds and bytes; ``latency`` by mean, p50 to p999 and max."""

    requests: int
    requests_with_warmup: int
    bytes: int  # all that was received, heads too
    seconds: float
    latency: dict[str, float]
    connections: int
    opened: int
    completions: dict[str, int]  # a connection: min, median, max
    in_flight: float  # requests/s times mean latency, by Little's law the connections that were served
    cpu: float  # the client's own
    server_cpu: float  # of the processes that were watched
    errors: dict[str, int]
    first_error: str

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds

    @property
    def busy(self) -> float:
        """The part of the time in which the client ran."""
        return self.cpu / self.seconds

    @property
    def failed(self) -> int:
        """Requests and connections that failed."""
        return sum(self.errors.values())

    @property
    def fair(self) -> bool:
        """Whether every connection was served, and the times agree with the rate (Little 1961) within a fifth."""
        return self.completions["min"] > 0 and abs(self.in_flight / self.connections - 1) < 0.2


@dataclass(frozen=True)
class Load:
    """One load: so many connections, each with one request under way, for so long.

    Targets are asked for in turn; with ``zipf`` > 0 the n-th with a weight of 1/n**zipf, drawn by ``seed``; with ``each``
    every connection asks for its equal share of them, once and in order; with ``own`` each for one alone, again and again.
    ``rate`` is what each connection reads, in bytes/s; ``watch`` are the processes whose CPU is told. A ``unix`` socket counts,
    and not ``port``.
    """

    port: int
    targets: Sequence[Target]
    seconds: float = 3.0
    connections: int = 64
    warmup: float = 0.0
    requests: int | None = None
    errors: int = 100
    zipf: float = 0.0
    seed: int = 1
    headers: Sequence[str] = ()
    status: int = 200
    tls: bool = False
    discard: bool = False
    each: bool = False
    own: bool = False
    unix: str = ""
    method: str = "GET"
    core: int | None = None
    rate: int | None = None
    receive_buffer: int | None = None
    per_connection: int | None = None
    watch: Iterable[int] = field(default_factory=tuple)

    def run(self) -> Report:
        """Build the client if need be, run it and read its report; raises LoadError."""
        with self.start() as running:
            return running.report()

    def start(self) -> Running:
        """Start it beside what else is done; raises LoadError."""
        program = build()
        folder = tempfile.TemporaryDirectory(prefix="streamgate-load-")
        targets = Path(folder.name) / "targets"
        rows = ((each.path, str(each.length), each.header, each.body) for each in self.targets)
        targets.write_text("".join("\t".join(row) + "\n" for row in rows))
        options = ["--port", self.port, "--targets", targets]
        for name in ("seconds", "connections", "warmup", "errors", "zipf", "seed", "status", "method"):
            options += [f"--{name}", getattr(self, name)]
        for name in ("requests", "core", "rate", "receive_buffer", "per_connection"):
            if (value := getattr(self, name)) is not None:
                options += [f"--{name.replace('_', '-')}", value]
        options += ["--unix", self.unix] if self.unix else []
        options += [f"--{name}" for name in ("tls", "discard", "each", "own") if getattr(self, name)]
        options += [option for header in self.headers for option in ("--header", header)]
        options += [option for pid in self.watch for option in ("--watch", pid)]
        return Running([str(program), *map(str, options)], self.warmup + self.seconds + _GRACE_S, folder)


class Running:
    """A client that runs; its end as a context manager is the client's end."""

    def __init__(self, command: list[str], limit: float, folder: tempfile.TemporaryDirectory[str]) -> None:
        self._limit = limit
        self._folder = folder
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def report(self) -> Report:
        """Wait for the end; raises LoadError."""
        try:
            told, complaint = self.process.communicate(timeout=self._limit)
        except subprocess.TimeoutExpired:
            raise LoadError(f"the client did not end within {self._limit:.0f} s") from None
        if self.process.returncode:
            raise LoadError(complaint.strip() or f"the client ended with {self.process.returncode}")
        counted = json.loads(told)
        return Report(**{entry.name: counted[entry.name] for entry in fields(Report)})

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self._folder.cleanup()


def build() -> Path:
    """The program, compiled once for this source into ``$XDG_CACHE_HOME/streamgate``; raises LoadError."""
    source = SOURCE.read_bytes()
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamgate"
    program = base / f"load-{blake2b(source + repr((_FLAGS, _LIBRARIES)).encode(), digest_size=8).hexdigest()}"
    if not program.exists():
        base.mkdir(parents=True, exist_ok=True)
        aside = program.with_suffix(f".{os.getpid()}")
        command = [os.environ.get("CC", "gcc"), *_FLAGS, str(SOURCE), "-o", str(aside), *_LIBRARIES]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            raise LoadError(f"no C compiler: {error}") from error
        if done.returncode:
            raise LoadError(f"the load client does not compile (libssl-dev is needed): {done.stderr[-500:]}")
        aside.rename(program)
    return program
