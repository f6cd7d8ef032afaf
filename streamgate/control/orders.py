"""What the control process is started with."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any, TextIO


@dataclass(frozen=True)
class Orders:
    """Numbers are inherited descriptors: ``config`` of the settings file, ``listening`` of the Unix socket, ``control`` of the channel;
    ``page`` of the memory in which the node's processes count, in the ``slot`` of each.

    ``root`` is where the assets are (a path, or s3://bucket/prefix), ``store`` the path of the machine's store.
    """

    config: int
    overrides: dict[str, dict[str, Any]]
    root: str
    store: str
    listening: int
    control: int
    page: int
    slot: int

    @classmethod
    def read(cls, stream: TextIO) -> Orders:
        """The orders that a parent wrote; what else it wrote is not for us."""
        told = json.load(stream)
        return cls(**{each.name: told[each.name] for each in fields(cls)})

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All that is inherited."""
        return tuple(each for each in (self.config, self.listening, self.control, self.page) if each >= 0)
