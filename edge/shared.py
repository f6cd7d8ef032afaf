"""The page of counters that the processes of a node share: memory without a file, a slot for each process.

A process writes into its own slot and reads all. A slot outlives its process: the next one that gets it goes on counting
where the dead one stopped, so that nothing that was counted is ever lost.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import PlatformCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from streamgate.core.cells import HEAD, SLOT, Cells, slot_of

_PID = 0  # word of a slot's head: the process that writes; 0: none
_BEATS = 1  # word of a slot's head: how often its owner has shown that it lives; 0: not yet
_TAKEN = 2**63  # by a process that is yet to be started
_TICK_HZ = os.sysconf("SC_CLK_TCK")


class Page:
    """Slots in the memory behind ``fd``, which processes inherit. Slots are given and taken back by the parent alone."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._slots: dict[int, tuple[memoryview[int], Cells]] = {}

    @classmethod
    def create(cls) -> Page:
        """A page without slots."""
        return cls(os.memfd_create("streamgate-counters"))

    def __len__(self) -> int:
        return os.fstat(self.fd).st_size // SLOT

    def take(self) -> int:
        """The number of a slot that nobody writes into, made where there is none; it is kept for its owner, who is yet to be told."""
        free = next((slot for slot in range(len(self)) if not self.pid(slot)), None)
        if free is None:
            free = len(self)
            os.ftruncate(self.fd, (free + 1) * SLOT)
        self.own(free, _TAKEN)
        return free

    def own(self, slot: int, pid: int) -> None:
        """Let ``pid`` be the slot's writer."""
        self._at(slot)[0][_PID] = pid

    def beat(self, slot: int) -> None:
        """Show that the slot's owner lives."""
        self._at(slot)[0][_BEATS] += 1

    def beats(self, slot: int) -> int:
        """How often the slot's owner has shown that it lives."""
        return self._at(slot)[0][_BEATS]

    def free(self, slot: int) -> None:
        """Take a slot back whose process is dead: its counts stay, what it told of its state goes."""
        head, cells = self._at(slot)
        cells.forget_gauges()
        head[_PID] = head[_BEATS] = 0

    def pid(self, slot: int) -> int:
        """Who writes into a slot; 0: nobody."""
        return self._at(slot)[0][_PID]

    def cells(self, slot: int) -> Cells:
        """A slot's metrics."""
        return self._at(slot)[1]

    def gauge(self, slot: int, name: str) -> float:
        """What a slot's owner wrote down last for a gauge without labels; 0 where there is nothing."""
        return next((values[0] for key, values in self.cells(slot).read() if key == f"g\x1f{name}"), 0.0)

    def read(self) -> Iterator[tuple[str, Sequence[float]]]:
        """Every entry of every slot."""
        for slot in range(len(self)):
            yield from self.cells(slot).read()

    def collectors(self) -> Iterable[Collector]:
        """About the interpreter, and the processes by slot."""
        return PlatformCollector(registry=CollectorRegistry()), _Processes(self)

    def _at(self, slot: int) -> tuple[memoryview[int], Cells]:
        found = self._slots.get(slot)
        if found is None:
            memory = slot_of(self.fd, slot)
            found = self._slots.setdefault(slot, (memory[:HEAD].cast("Q"), Cells(memory[HEAD:])))
        return found


class _Processes:
    """What the kernel tells of each process that has a slot."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def collect(self) -> Iterator[Metric]:
        """Memory, CPU and open files, by slot."""
        memory = GaugeMetricFamily("streamgate_process_resident_bytes", "Resident memory.", labels=["slot"])
        files = GaugeMetricFamily("streamgate_process_open_files", "Open files.", labels=["slot"])
        seconds = CounterMetricFamily("streamgate_process_cpu_seconds", "CPU time.", labels=["slot"])
        for slot in range(len(self._page)):
            pid = self._page.pid(slot)
            if not pid:
                continue
            try:
                resident = int(_read(f"/proc/{pid}/statm").split()[1]) * mmap.PAGESIZE
                # Behind the name, which may hold anything: fields 14 and 15 of proc(5)'s stat are utime and stime.
                times = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[11:13]
                opened = len(os.listdir(f"/proc/{pid}/fd"))
            except OSError:
                continue  # it ended just now
            memory.add_metric([str(slot)], resident)
            files.add_metric([str(slot)], opened)
            seconds.add_metric([str(slot)], sum(map(int, times)) / _TICK_HZ)
        yield from (memory, files, seconds)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
