"""Metrics: one table, and their numbers in cells that other processes may read too (:mod:`streamgate.core.cells`).

No metric is labelled by asset, path, client or anything else whose values a stranger can multiply.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Literal, Protocol

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from streamgate.core import cells as memory
from streamgate.core.cells import Cells

Kind = Literal["counter", "gauge", "histogram"]

LATENCIES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the histograms' buckets, s; one without a bound follows."""

_BUCKETS = len(LATENCIES) + 1
_BETWEEN = "\x1f"  # parts of a key
_NAMES = "\x1e"  # names of a block of counters
_NS = 1e-9


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric's declaration; ``unit`` is "" for plain counts."""

    name: str
    kind: Kind
    unit: str
    help: str
    labels: tuple[str, ...] = ()


METRICS: tuple[Metric, ...] = (
    Metric("requests", "counter", "", "Requests answered, by class of route and status.", ("route", "status")),
    Metric(
        "request_seconds",
        "histogram",
        "seconds",
        "From the request's head to the last byte handed to the kernel.",
        ("route",),
    ),
    Metric("first_byte_seconds", "histogram", "seconds", "From the request's head to the response's head.", ("route",)),
    Metric("response_bytes", "counter", "bytes", "Bytes of response bodies sent.", ("route",)),
    Metric("requests_in_flight", "gauge", "", "Requests being answered."),
    Metric(
        "requests_aborted",
        "counter",
        "",
        "Responses cut short: by the client, by a timeout or by a source.",
        ("cause",),
    ),
    Metric("errors", "counter", "", "Error answers, by code.", ("code",)),
    Metric("connections", "gauge", "", "Open connections."),
    Metric("connections_refused", "counter", "", "Connections closed because there were too many."),
    Metric(
        "connections_failed",
        "counter",
        "",
        "Connections that ended before they were open: full, or no PROXY header.",
        ("cause",),
    ),
    Metric("log_lines_dropped", "counter", "", "Lines about requests that their file did not take."),
    Metric("accept_pauses", "counter", "", "Times that no connection could be accepted for want of files or memory."),
    Metric("worker_deaths", "counter", "", "Workers that died and were replaced."),
    Metric("worker_seats_empty", "gauge", "", "Workers that are missing; those that there are take their connections."),
    Metric("auth_deaths", "counter", "", "Times that the process of the auth role died and was replaced."),
    Metric("admin_refused", "counter", "", "Requests to the operators' address without the right token."),
    Metric("worker_hangs", "counter", "", "Workers that showed no sign of life and were killed."),
    Metric("reloads", "counter", "", "Reloads of settings and code, by result: ok, or an error code.", ("result",)),
    Metric(
        "segment_cut_seconds", "histogram", "seconds", "Reading and cutting one segment, or one block of it.", ("kind",)
    ),
    Metric("cache_lookups", "counter", "", "Look-ups in memory, by result.", ("result",)),
    Metric("cache_bytes", "gauge", "bytes", "What is held to be served from memory."),
    Metric("tier_hits", "counter", "", "Objects found, by tier.", ("tier",)),
    Metric(
        "fills",
        "counter",
        "",
        "Flights that make an object: begun, followed in another process, failed, silent: left by those who followed.",
        ("result",),
    ),
    Metric("redis_reads", "counter", "", "Reads of the Redis tier that gave nothing though it was asked.", ("result",)),
    Metric("redis_writes", "counter", "", "Writes to the Redis tier: stored, failed, dropped.", ("result",)),
    Metric("redis_bytes", "counter", "bytes", "Values that went to the Redis tier or came from it.", ("direction",)),
    Metric("redis_left_alone", "gauge", "", "Processes whose circuit to Redis is not closed, by use.", ("use",)),
    Metric("shared_flights", "counter", "", "Misses that were made here, or by another node meanwhile.", ("result",)),
    Metric(
        "prefetches",
        "counter",
        "",
        "Segments fetched ahead, by what became of them: fetched, used, wasted; present already, failed, dropped.",
        ("result",),
    ),
    Metric("prefetch_bytes", "counter", "bytes", "Their bytes.", ("result",)),
    Metric("warmed", "counter", "", "Objects of warm-ups, by result: fetched, present, dropped, failed.", ("result",)),
    Metric(
        "cmcd_keys",
        "counter",
        "",
        "Keys that players reported (CMCD): kept, unknown to their version, invalid.",
        ("result",),
    ),
    Metric("disk_bytes", "gauge", "bytes", "Objects in the disk tier."),
    Metric("disk_writes_off", "gauge", "", "Workers that write nothing to the disk tier, for a write has failed."),
    Metric("disk_failures", "counter", "", "Failures that turned writes to the disk tier off."),
    Metric("cache_objects", "gauge", "", "Objects in memory, compressed forms among them."),
    Metric("disk_objects", "gauge", "", "Objects in the disk tier."),
    Metric("purges", "counter", "", "Purges that workers have applied, by kind, hard or soft.", ("kind", "mode")),
    Metric("purged_objects", "counter", "", "Objects that purges have thrown out, or made stale, by tier.", ("tier",)),
    Metric("refreshes", "counter", "", "Objects made anew that were purged softly: ok, failed, dropped.", ("result",)),
    Metric("disk_corrupt", "counter", "", "Damaged objects that were thrown out of the disk tier."),
    Metric("origin_requests", "counter", "", "Requests sent to the store of the sources.", ("operation",)),
    Metric("origin_received_bytes", "counter", "bytes", "Bytes of bodies that the store has sent."),
    Metric("origin_failures", "counter", "", "Requests to the store that failed, each attempt, by error.", ("code",)),
    Metric("origin_retries", "counter", "", "Requests to the store that were sent again after a failure."),
    Metric("origin_hedges", "counter", "", "Requests sent a second time because the first took long."),
    Metric("origin_replicas_down", "gauge", "", "Buckets that are asked last, for they have failed."),
    Metric("origin_replicas_left_out", "counter", "", "Objects of which a bucket holds other bytes than the first."),
    Metric("assets_open", "gauge", "", "Assets kept open."),
    Metric("asset_opens", "counter", "", "Attempts to open an asset, by result: ok, or an error code.", ("result",)),
    Metric(
        "asset_open_seconds", "histogram", "seconds", "Opening an asset: reading indexes, building its presentation."
    ),
    Metric("asset_checks_failed", "counter", "", "Looks at an open asset's objects that the store did not answer."),
    Metric("origin_reads", "counter", "", "Ranges read from the store, by result: ok, or an error code.", ("result",)),
    Metric("origin_held_bytes", "gauge", "bytes", "What was read from the store and is in memory for its neighbours."),
    Metric("site_feed_age_seconds", "gauge", "seconds", "Time since the site's feed of events was last read."),
    Metric("site_feed_stale", "gauge", "", "Workers to whom the site's feed is older than revocation.max_age."),
    Metric("stale_authorizations", "counter", "", "Tokens that aiohttp's path believed while that was so."),
    Metric("leases", "counter", "", "Leases asked for, or to be extended: granted, refused, unavailable.", ("result",)),
    Metric("token_renewals", "counter", "", "New tokens that answers have brought: in a cookie, a header, a redirect.", ("way",)),
    Metric("auth_requests", "counter", "", "Requests that the auth role answered.", ("route", "status")),
    Metric("auth_seconds", "histogram", "seconds", "From the auth role's request to its answer.", ("route",)),
    Metric("auth_refusals", "counter", "", "Leases, and requests, that the auth role refused, by code.", ("code",)),
    Metric("auth_leases", "counter", "", "Leases that the auth role granted or extended."),
    Metric("auth_sessions", "gauge", "", "Sessions that the auth role has in memory."),
    Metric("auth_revocations", "gauge", "", "Revocations that the auth role goes by."),
    Metric("leases_held", "gauge", "", "Sessions, by network, that workers hold leases for."),
    Metric("site_events", "counter", "", "Events read from the site's feed, and published to it.", ("way",)),
    Metric("site_feed_renewals", "counter", "", "Times that the site's feed began anew, or may have lost something."),
    Metric("site_feed_failures", "counter", "", "Times that the site's feed could not be read, or written.", ("way",)),
    Metric("remuxes", "counter", "", "Containers converted, by result: ok, or an error code.", ("result",)),
    Metric("tasks_queued", "gauge", "", "Tasks waiting for a thread.", ("pool",)),
    Metric("buffered_bytes", "gauge", "bytes", "Segments in memory on their way to clients."),
)


class Node(Protocol):
    """All processes whose numbers make up the node's."""

    def read(self) -> Iterator[tuple[str, Sequence[float]]]:
        """Every entry of every process, those that ended included."""

    def collectors(self) -> Iterable[Collector]:
        """What else is told of the node."""


class _Alone:
    """A node that is this process."""

    def __init__(self, cells: Cells) -> None:
        self.read = cells.read

    def collectors(self) -> Iterable[Collector]:
        """About the process and its interpreter."""
        registry = CollectorRegistry()
        return ProcessCollector(registry=registry), PlatformCollector(registry=registry), GCCollector(registry=registry)


class Telemetry:
    """The metrics of one process: kept in ``cells``, told for the whole ``node``. Without them the process is alone."""

    def __init__(
        self, metrics: Iterable[Metric] = METRICS, cells: Cells | None = None, node: Node | None = None
    ) -> None:
        self._cells = cells or memory.private()
        # Where no room is left in the former: counted, but told to nobody else.
        self._spill = memory.private()
        self._node = node or _Alone(self._cells)
        self._metrics: dict[str, Metric] = {}
        self._series: dict[tuple[str, ...], tuple[memoryview[float], int]] = {}
        self._watched: dict[tuple[str, ...], Callable[[], float]] = {}
        self._lock = threading.Lock()
        for metric in metrics:
            self.register(metric)

    def register(self, metric: Metric) -> None:
        """Add a metric that another room brings; raises ValueError where its name is taken."""
        if metric.name in self._metrics:
            raise ValueError(f"there is a metric {metric.name} already")
        self._metrics[metric.name] = metric

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        self._add(self._named(name, labels), 0, amount)

    def gauge(self, name: str, delta: float, **labels: str) -> None:
        """Move a gauge by ``delta``."""
        self._add(self._named(name, labels), 0, delta)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Put a value (seconds) into a histogram."""
        series = self._named(name, labels)
        self._add(series, bisect_left(LATENCIES, value), 1)
        self._add(series, _BUCKETS, value)

    def watch(self, name: str, read: Callable[[], float], **labels: str) -> None:
        """Let a gauge be read when it is asked for."""
        self._watched[self._named(name, labels)] = read

    def block(self, names: Sequence[str]) -> memoryview[int]:
        """A row of unsigned 64-bit counters for code that counts by itself, one a name, in this order.

        A name is a metric's with its labels' values behind slashes: ``requests/segment/200``. A histogram's cells are
        ``NAME_seconds/LABELS/BOUND``, each for itself, and ``NAME_ns/LABELS`` is its sum in nanoseconds. A name without
        labels that no metric has becomes a counter of its own. Where there is no room, nobody else sees the counts.
        """
        key = f"q{_BETWEEN}{_NAMES.join(names)}"
        first = self._cells.find(key, len(names))
        view = self._cells.words if first is not None else memoryview(bytearray(8 * len(names))).cast("Q")
        return view[first or 0 : (first or 0) + len(names)]

    def publish(self) -> None:
        """Write down what is watched, for other processes to read."""
        for series, read in list(self._watched.items()):
            view, at = self._place(series)
            view[at] = read()

    def value(self, name: str, **labels: str) -> float:
        """What a counter or gauge of this process stands at; 0 where it was never touched."""
        series = self._named(name, labels)
        if (read := self._watched.get(series)) is not None:
            return read()
        return _sums(chain(self._cells.read(), self._spill.read()), self._metrics)[0].get(series, [0.0])[0]

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Everything of the node in the format that ``accept`` prefers: (body, media type)."""
        self.publish()
        encode, media_type = choose_encoder(accept)
        registry = CollectorRegistry()
        registry.register(self)
        for collector in self._node.collectors():
            registry.register(collector)
        return encode(registry), media_type

    def collect(self) -> Iterator[Family]:
        """All metrics, as prometheus_client wants them of a collector."""
        sums, others = _sums(self._node.read(), self._metrics)
        by_name: dict[str, list[tuple[list[str], list[float]]]] = {name: [] for name in self._metrics}
        for (name, *labels), values in sorted(sums.items()):
            by_name[name].append((labels, values))
        for name, metric in self._metrics.items():
            yield _family(metric, by_name[name] or ([] if metric.labels else [([], [0.0] * (_BUCKETS + 1))]))
        for name, value in sorted(others.items()):
            yield CounterMetricFamily(f"streamgate_{name}", "Counted by the native protocol.", value)

    def _named(self, name: str, labels: dict[str, str]) -> tuple[str, ...]:
        wanted = self._metrics[name].labels
        if len(labels) != len(wanted):
            raise ValueError(f"{name} has the labels {wanted}")
        return (name, *(labels[label] for label in wanted))

    def _place(self, series: tuple[str, ...]) -> tuple[memoryview[float], int]:
        """Where a series is kept: its view and the index of its first cell."""
        place = self._series.get(series)
        if place is None:
            kind = self._metrics[series[0]].kind
            key = _BETWEEN.join(("g" if kind == "gauge" else "d", *series))
            count = _BUCKETS + 1 if kind == "histogram" else 1
            for cells in (self._cells, self._spill):
                first = cells.find(key, count)
                if first is not None:
                    break
            place = self._series[series] = (cells.doubles, first or 0)
        return place

    def _add(self, series: tuple[str, ...], offset: int, amount: float) -> None:
        view, first = self._place(series)
        with self._lock:
            view[first + offset] += amount


def _sums(
    entries: Iterable[tuple[str, Sequence[float]]], metrics: dict[str, Metric]
) -> tuple[dict[tuple[str, ...], list[float]], dict[str, float]]:
    """The sums of all entries by series, and of counters that no metric declares by name."""
    sums: dict[tuple[str, ...], list[float]] = {}
    others: dict[str, float] = {}

    def add(series: tuple[str, ...], at: int, value: float) -> None:
        metric = metrics[series[0]]
        if len(series) == len(metric.labels) + 1:
            row = sums.setdefault(series, [0.0] * (_BUCKETS + 1 if metric.kind == "histogram" else 1))
            if at < len(row):
                row[at] += value

    for key, values in entries:
        kind, *parts = key.split(_BETWEEN)
        if kind != "q":
            if parts[0] in metrics:
                for at, value in enumerate(values):
                    add(tuple(parts), at, value)
            continue
        for name, value in zip(parts[0].split(_NAMES), values, strict=False):
            first, *labels = name.split("/")
            metric = metrics.get(first)
            if metric is not None and metric.kind == "histogram" and labels:
                add((first, *labels[:-1]), bisect_left(LATENCIES, float(labels[-1])), value)
            elif metric is not None:
                add((first, *labels), 0, value)
            elif first.endswith("_ns") and (sum_of := f"{first.removesuffix('_ns')}_seconds") in metrics:
                add((sum_of, *labels), _BUCKETS, value * _NS)
            elif not labels:
                others[first] = others.get(first, 0.0) + value
    # A series that the native code could count but never did is no news.
    return {series: row for series, row in sums.items() if any(row) or metrics[series[0]].kind == "gauge"}, others


def _family(metric: Metric, series: list[tuple[list[str], list[float]]]) -> Family:
    name = f"streamgate_{metric.name}"
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(name, metric.help, labels=metric.labels)
        bounds = [*map(str, LATENCIES), "+Inf"]
        for labels, values in series:
            *counts, total = values
            histogram.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), total)
        return histogram
    made = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = made(name, metric.help, labels=metric.labels)
    for labels, values in series:
        family.add_metric(labels, values[0])
    return family
