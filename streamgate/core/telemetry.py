"""Metrics: one table, and the collectors made from it.

No metric is labelled by asset, path, client or anything else whose values a stranger can multiply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

# A second series for each first one, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]

Kind = Literal["counter", "gauge", "histogram"]

_LATENCIES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


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
        "segment_cut_seconds", "histogram", "seconds", "Reading and cutting one segment, or one block of it.", ("kind",)
    ),
    Metric("cache_lookups", "counter", "", "Look-ups in memory, by result.", ("result",)),
    Metric("cache_bytes", "gauge", "bytes", "Playlists, manifests, init segments and subtitles in memory."),
    Metric("assets_open", "gauge", "", "Assets kept open."),
    Metric("asset_opens", "counter", "", "Attempts to open an asset, by result: ok, or an error code.", ("result",)),
    Metric(
        "asset_open_seconds", "histogram", "seconds", "Opening an asset: reading indexes, building its presentation."
    ),
    Metric("remuxes", "counter", "", "Containers converted, by result: ok, or an error code.", ("result",)),
    Metric("tasks_queued", "gauge", "", "Tasks waiting for a thread.", ("pool",)),
    Metric("buffered_bytes", "gauge", "bytes", "Segments in memory on their way to clients."),
)


class Telemetry:
    """The collectors of one process, in a registry of its own."""

    def __init__(self, metrics: Iterable[Metric] = METRICS) -> None:
        self.registry = CollectorRegistry()
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        for metric in metrics:
            self.register(metric)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def register(self, metric: Metric) -> None:
        """Add a metric that another room brings; raises ValueError where its name is taken."""
        name = f"streamgate_{metric.name}"
        if metric.kind == "counter":
            self._counters[metric.name] = Counter(name, metric.help, metric.labels, registry=self.registry)
        elif metric.kind == "gauge":
            self._gauges[metric.name] = Gauge(name, metric.help, metric.labels, registry=self.registry)
        else:
            self._histograms[metric.name] = Histogram(
                name, metric.help, metric.labels, registry=self.registry, buckets=_LATENCIES
            )

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        counter = self._counters[name]
        (counter.labels(**labels) if labels else counter).inc(amount)

    def gauge(self, name: str, delta: float, **labels: str) -> None:
        """Move a gauge by ``delta``."""
        gauge = self._gauges[name]
        (gauge.labels(**labels) if labels else gauge).inc(delta)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Put a value (seconds) into a histogram."""
        histogram = self._histograms[name]
        (histogram.labels(**labels) if labels else histogram).observe(value)

    def watch(self, name: str, read: Callable[[], float], **labels: str) -> None:
        """Let a gauge be read when it is asked for."""
        gauge = self._gauges[name]
        (gauge.labels(**labels) if labels else gauge).set_function(read)

    def value(self, name: str, **labels: str) -> float:
        """What a counter or gauge stands at; 0 where it was never touched."""
        for metric in (self._counters.get(name) or self._gauges[name]).collect():
            for sample in metric.samples:
                if sample.labels == labels:
                    return sample.value
        return 0.0

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Everything in the format that ``accept`` prefers: (body, media type)."""
        encode, media_type = choose_encoder(accept)
        return encode(self.registry), media_type
