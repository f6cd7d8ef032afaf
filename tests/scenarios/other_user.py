"""Commands of a user who is not root and owns nothing on this machine but a home."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

_NOBODY = 65534
_ENOUGH = """
import ensurepip, os, sys, sysconfig, venv
sys.exit(sys.version_info < (3, 11) or not os.path.exists(sysconfig.get_paths()["include"] + "/Python.h"))
"""


def as_other(*command: str) -> tuple[str, ...]:
    """``command`` for that user; the one who runs the tests where that isn't root."""
    if os.geteuid() != 0:
        return command
    # Of root's capabilities setpriv may still have some when it starts something; env has none left.
    return ("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "env", *command)


def give(home: Path) -> None:
    """Make ``home`` and all in it that user's."""
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", f"{_NOBODY}:{_NOBODY}", home], check=True, timeout=60)


@cache
def python() -> str | None:
    """An interpreter with which that user can make environments and build extensions."""
    for candidate in (f"{sys.base_prefix}/bin/python3", "/usr/bin/python3"):
        try:
            done = subprocess.run(as_other(candidate, "-c", _ENOUGH), capture_output=True, timeout=30, cwd="/")
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return candidate
    return None


def why_not() -> str | None:
    """Why no other user can do anything here, or None."""
    return None if python() else "no Python that a user without rights may run (python3-venv, python3-dev)"
