"""Indexes of sources, kept so that a source that was opened before is opened without reading its boxes again."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Protocol

from streamgate.errors import StreamGateError
from streamgate.native.index import FORMAT_VERSION, Index
from streamgate.native.isobmff import read_index
from streamgate.storage.objects.source import Source


class IndexStore(Protocol):
    """Where they are kept; both block, and neither raises."""

    def get(self, key: str) -> bytes | None:
        """What was kept under ``key``."""

    def keep(self, key: str, data: bytes) -> bool:
        """Keep it; whether that was done."""


def index_of(source: Source, limits: Mapping[str, int], store: IndexStore | None) -> Index:
    """The index of ``source``, from the ``store`` or read anew and kept there; blocking.

    ``limits`` are those of :func:`streamgate.native.isobmff.read_index`, by name, which also tells what is raised.
    """
    if store is None:
        return read_index(source.read, source.size, **limits)
    key = f"/index/{FORMAT_VERSION}/{_digest(source, limits)}"
    data = store.get(key)
    if data is not None:
        try:
            return Index.loads(data)
        except StreamGateError:
            pass  # from a machine of another kind
    made = read_index(source.read, source.size, **limits)
    store.keep(key, made.dumps())
    return made


def _digest(source: Source, limits: Mapping[str, int]) -> str:
    """What must be the same: the bytes of the source, and the limits."""
    return blake2b(f"{source.key} {sorted(limits.items())}".encode(), digest_size=16).hexdigest()
