"""Debian packages: which are missing, and installing them where one may.

``python3 tools/apt.py GROUP…`` with the groups below. Nothing here needs more than the standard library.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GROUPS = {
    "build": ("python3-venv", "python3-dev"),
    "test": (
        "ffmpeg", "chromium", "fonts-dejavu-core", "tstools",
        "gstreamer1.0-tools", "gstreamer1.0-plugins-base", "gstreamer1.0-plugins-good", "gstreamer1.0-plugins-bad",
        "gstreamer1.0-plugins-base-apps", "gstreamer1.0-plugins-ugly", "gstreamer1.0-libav",
        "nginx", "varnish", "haproxy", "curl", "openssl", "redis-server", "faketime",
    ),
    "bench": ("ffmpeg", "nginx", "varnish", "openssl", "redis-server", "gcc", "libc6-dev", "libssl-dev"),
    "slow": ("buildah", "debootstrap"),
    "fuzz": ("clang",),
}  # fmt: skip
POLICY = Path("/usr/sbin/policy-rc.d")


def missing(group: str) -> list[str]:
    """The packages of ``group`` that this machine lacks. What builds need is tried, for it need not come from Debian."""
    if group == "build":
        lacking = []
        if subprocess.run([sys.executable, "-c", "import venv, ensurepip"], stderr=subprocess.DEVNULL).returncode:
            lacking.append("python3-venv")
        if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
            lacking.append("python3-dev")
        if _uses_openssl() and not any(Path("/usr/include").glob("**/openssl/crypto.h")):
            lacking.append("libssl-dev")
        return lacking
    if not shutil.which("dpkg-query"):
        return list(GROUPS[group])
    query = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\\n", *GROUPS[group]]
    told = subprocess.run(query, capture_output=True, text=True).stdout
    installed = {line.split()[0] for line in told.splitlines() if line.endswith(" installed")}
    return [package for package in GROUPS[group] if package not in installed]


def _uses_openssl() -> bool:
    sources = Path(__file__).resolve().parent.parent.joinpath("native").iterdir()
    return any(b"openssl/" in path.read_bytes() for path in sources if path.suffix in (".pyx", ".pxd", ".h"))


@contextmanager
def no_daemons() -> Iterator[None]:
    """While the block runs, packages may not start services; 101 is policy-rc.d's word for that."""
    kept = POLICY.with_name("policy-rc.d.kept")
    if POLICY.exists():
        POLICY.rename(kept)
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()
        if kept.exists():
            kept.rename(POLICY)


def install(packages: list[str]) -> bool:
    """Whether ``packages`` could be installed; says what it does in one line."""
    names = " ".join(packages)
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        print(f"Missing: {names} (apt-get install --no-install-recommends {names})", flush=True)
        return False
    print(f"Installing {names}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = [
        "apt-get",
        "install",
        "--yes",
        "--quiet=2",
        "--no-install-recommends",
        "-o",
        "Dpkg::Use-Pty=0",
        *packages,
    ]
    with no_daemons():
        subprocess.run(["apt-get", "update", "--quiet=2"], env=environment)
        done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL)
    return done.returncode == 0


def main(groups: list[str]) -> int:
    """Install what is missing of ``groups``; only a missing ``build`` package is an error."""
    status = 0
    for group in groups:
        packages = missing(group)
        if packages and not install(packages) and group == "build":
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
