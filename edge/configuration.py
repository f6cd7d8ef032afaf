"""Where a node's settings come from, so that they can be read again, and handed to workers as they were read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge import limits, tls
from edge.prefetched import room
from streamgate.core.config import load
from streamgate.core.settings import Settings
from streamgate.errors import StreamGateError


def of_file(descriptor: int, overrides: Mapping[str, Mapping[str, Any]]) -> Settings:
    """The settings that an open file holds. Raises ``config_invalid``."""
    return load(Path(f"/proc/self/fd/{descriptor}"), overrides=overrides)


@dataclass(frozen=True)
class Snapshot:
    """Settings, and the file that they were read from as it was then: ``descriptor`` is of memory, for workers to inherit."""

    settings: Settings
    descriptor: int
    limits: int
    """Memory of the rates of requests, by :mod:`edge.limits`, and behind it that of :mod:`edge.prefetched`."""
    certificate: int = -1
    key: int = -1
    """What the files of the certificate and its key held, by :func:`edge.tls.keep`."""

    def close(self) -> None:
        """Forget the files."""
        for number in (self.descriptor, self.limits, self.certificate, self.key):
            if number >= 0:
                os.close(number)


@dataclass(frozen=True)
class Configuration:
    """A file, or the one that STREAMGATE_CONFIG names, or none; and what the command line overrides."""

    path: Path | None = None
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)

    def read(self) -> Snapshot:
        """The settings as they are now. Raises ``config_invalid``."""
        path = self.path or (Path(named) if (named := os.environ.get("STREAMGATE_CONFIG")) else None)
        if path is None:
            # An empty file says the same as none.
            path = Path(os.devnull)
        # First from where it is, for the sake of the errors' words.
        load(path, overrides=self.overrides)
        with contextlib.ExitStack() as opened:
            descriptor = os.memfd_create("streamgate-config")
            opened.callback(os.close, descriptor)
            try:
                os.write(descriptor, path.read_bytes())
                settings = of_file(descriptor, self.overrides)
                counted = limits.create(settings.limits, room(settings.prefetch.remembered))
            except OSError as error:
                raise StreamGateError("config_invalid", f"{path}: {error.strerror}") from error
            opened.callback(os.close, counted)
            snapshot = Snapshot(settings, descriptor, counted, *tls.keep(settings.tls))
            opened.pop_all()
            return snapshot
