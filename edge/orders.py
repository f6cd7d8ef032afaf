"""What a worker is started with."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Orders:
    """Numbers are inherited descriptors; ``slot`` is the worker's on the page of counters.

    ``listening`` are the sockets of each seat, ``encrypted`` those that speak TLS; the worker's own seat is number ``seat``.
    ``certificate`` and ``key`` are memory with what was read of these files, -1 where there is none. ``workers`` is how
    many share the node's budgets. ``replacing``: it takes the place of one that served with these orders and died.
    ``auth``: the auth role's socket; "" where there is none.
    """

    root: str
    store: str
    config: int
    limits: int
    overrides: dict[str, dict[str, Any]]
    listening: list[list[int]]
    encrypted: list[list[int]]
    seat: int
    certificate: int
    key: int
    control: int
    page: int
    slot: int
    workers: int
    replacing: bool
    auth: str = ""

    def encode(self) -> bytes:
        """As the worker reads it. Names of files may be no UTF-8: JSON's escapes carry what stands in for such bytes."""
        return json.dumps(asdict(self)).encode()

    @property
    def descriptors(self) -> list[int]:
        """All that the worker inherits."""
        sockets = {number for seat in (*self.listening, *self.encrypted) for number in seat}
        files = (self.control, self.page, self.config, self.limits, self.certificate, self.key)
        return [*sorted(sockets), *(number for number in files if number >= 0)]
