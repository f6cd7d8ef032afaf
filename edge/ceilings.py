"""What one of a node's workers may hold: its part of the node's ceilings, and of connections as many as it has files for."""

from __future__ import annotations

from streamgate.core.lifecycle import file_limit
from streamgate.core.logging import get_logger
from streamgate.core.settings import EdgeSettings, Settings
from streamgate.errors import StreamGateError

_log = get_logger("edge.ceilings")
_OTHER_FILES = 128  # sockets and stores of our own, logs, what is being written
_FEWEST_FILES = 384
_AHEAD = ("jobs", "bytes_in_flight", "bytes_per_second")


def share(settings: Settings, workers: int) -> Settings:
    """The settings of one of ``workers``: ceilings of memory and connections are the node's, and each has its part.

    No more connections than files that the process may open have room for, beside sources and objects of the disk tier;
    raises ``files_too_few`` where there is no room to speak of.
    """
    server, edge, limit = settings.server, settings.edge, file_limit()
    if limit < _FEWEST_FILES:
        said = f"a process may have {limit} files open (ulimit -n, LimitNOFILE); it takes at least {_FEWEST_FILES}"
        raise StreamGateError("files_too_few", said)
    parts = {name: max(1, getattr(edge, name) // workers) for name in ("cache_bytes", "buffered_bytes")}
    ahead = {name: max(1, getattr(settings.prefetch, name) // workers) for name in _AHEAD}
    room = limit - kept_objects(edge, limit) - min(edge.open_assets, limit // 4) - _OTHER_FILES
    most = min(room, -(-server.max_connections // workers))
    return settings.model_copy(
        update={
            "server": server.model_copy(update={"max_connections": most}),
            "edge": edge.model_copy(update=parts),
            "prefetch": settings.prefetch.model_copy(update=ahead),
            "origin": settings.origin.model_copy(update={"held_bytes": max(1, settings.origin.held_bytes // workers)}),
        }
    )


def kept_objects(settings: EdgeSettings, limit: int) -> int:
    """Files of the disk tier that a process keeps open of the ``limit`` that it may open."""
    return min(settings.open_objects, max(16, limit // 4))


def connections(settings: Settings, workers: int) -> int:
    """How many connections all workers together take, which is said in the log where the settings ask for more.

    Raises ``files_too_few``.
    """
    asked = settings.server.max_connections
    taken = min(asked, workers * share(settings, workers).server.max_connections)
    if taken < asked:
        _log.warning(
            "fewer connections than server.max_connections: a process may open too few files",
            connections=taken,
            max_connections=asked,
            files=file_limit(),
        )
    return taken
