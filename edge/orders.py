"""What a worker is started with."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Orders:
    """Numbers are inherited descriptors, ``encrypted`` those of sockets that speak TLS; ``slot`` is the worker's on the page of counters.

    ``workers`` is how many share the node's budgets.
    """

    root: str
    store: str
    config: int
    limits: int
    overrides: dict[str, dict[str, Any]]
    listening: list[int]
    encrypted: list[int]
    control: int
    page: int
    slot: int
    workers: int

    def encode(self) -> bytes:
        """As the worker reads it. Names of files may be no UTF-8: JSON's escapes carry what stands in for such bytes."""
        return json.dumps(asdict(self)).encode()

    @property
    def descriptors(self) -> list[int]:
        """All that the worker inherits."""
        return [*self.listening, *self.encrypted, self.control, self.page, self.config, self.limits]
