"""The connections that a process holds, as the kernel tells it."""

from __future__ import annotations

import os
from pathlib import Path

_ESTABLISHED = "01"
_CLOSE_WAIT = "08"


def clients_of(pid: int, port: int) -> set[int]:
    """The clients' ports of the connections to ``port`` that a process has accepted and holds."""
    held = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            held.add(os.readlink(f"/proc/{pid}/fd/{name}"))
        except FileNotFoundError:
            continue  # closed meanwhile
    return {client for client, inode in _connections(port) if f"socket:[{inode}]" in held}


def waiting_at(port: int) -> set[int]:
    """The clients' ports of the connections to ``port`` that nobody has accepted yet: they belong to no file."""
    return {client for client, inode in _connections(port) if inode == "0"}


def _connections(port: int) -> list[tuple[int, str]]:
    """The client's port and the inode of each connection to ``port`` (proc_net_tcp in the kernel's documentation)."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return [
        (int(fields[2].rpartition(":")[2], 16), fields[9])
        for fields in rows
        if fields[1].endswith(f":{port:04X}") and fields[3] in (_ESTABLISHED, _CLOSE_WAIT)
    ]
