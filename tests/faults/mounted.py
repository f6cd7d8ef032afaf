"""File systems that only one node sees: mount namespaces need no privilege where users may have their own (user_namespaces(7))."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.edge.nodes import RunningNode

_UNSHARE = ("unshare", "--map-root-user", "--mount", "sh", "-ec")


@functools.cache
def available() -> bool:
    """Whether this machine lets us; containers as a rule do not."""
    try:
        done = subprocess.run([*_UNSHARE, "mount -t tmpfs none /tmp"], capture_output=True, timeout=20, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0


def limited(folder: Path, size: str) -> Sequence[str]:
    """What runs a node whose ``folder`` is a file system of this size."""
    return _through(f'mount -t tmpfs -o size={size} none "$0"', folder)


def read_only(folder: Path) -> Sequence[str]:
    """What runs a node that cannot write to ``folder``, nor change what is in it."""
    return _through('mount --bind "$0" "$0"; mount -o remount,bind,ro "$0"', folder)


def remount(running: RunningNode, folder: Path, options: str) -> None:
    """Change that while the node runs."""
    enter = ["nsenter", "--target", str(running.process.pid), "--user", "--mount", "--preserve-credentials"]
    subprocess.run([*enter, "mount", "-o", f"remount,{options}", str(folder)], check=True, timeout=20)


def seen_by(running: RunningNode, folder: Path) -> Path:
    """The folder as the node has it."""
    return Path(f"/proc/{running.process.pid}/root{folder}")


def _through(script: str, folder: Path) -> Sequence[str]:
    folder.mkdir(parents=True, exist_ok=True)
    return (*_UNSHARE, f'{script}; exec "$@"', str(folder))
