"""What the hot path counts: plain numbers in a row that somebody else names, adds up and publishes."""

from typing import Self, final

from typing_extensions import Buffer

ROUTES: tuple[str, ...]
"""Classes of routes that objects may have, by the names that metrics know."""

STATUSES: tuple[int, ...]
"""What the hot path answers with."""

LATENCIES: tuple[float, ...]
"""Upper bounds of the histograms' buckets in s, those of the node's telemetry; a last bucket, ``inf``, takes the rest."""

COUNTERS: tuple[str, ...]
"""What the counters count, in their order: a name, and behind slashes its labels.

``requests/{route}/{status}``, ``response_bytes/{route}``, ``request_seconds/{route}/{bound}`` (each bucket for itself),
``request_ns/{route}`` (the histogram's sum), and more.
"""

@final
class Tally:
    """Counts into a writable buffer of uint64, as many as COUNTERS. Raises ValueError where they do not fit."""

    def __new__(cls, counters: Buffer) -> Self: ...
