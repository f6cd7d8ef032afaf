"""Fuzzes every target for some seconds: ``python tools/variant.py fuzz tests/fuzz/run.py [--seconds N] [NAME…]``.

The kernels are built by clang with AddressSanitizer and coverage, the Python modules are instrumented when they are imported.
The exit status is 1 where anything was found; the input that found it is printed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.targets import TARGETS

_MEGABYTES = 1500
_SLOW_S = 10


def fuzz(name: str, seconds: int, folder: Path) -> bool:
    """Whether nothing was found."""
    corpus = folder / name
    corpus.mkdir(exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={_SLOW_S}",
        f"-rss_limit_mb={_MEGABYTES}",
        "-max_len=20000",
        "-seed=1",
    ]
    command = [sys.executable, "-m", "tests.fuzz.one", name, *options, f"-artifact_prefix={folder}/", str(corpus)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120)
    runs = re.search(r"Done (\d+) runs", done.stderr)
    if done.returncode or not runs:
        print(f"{name}: FOUND\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}", flush=True)
        return False
    print(
        f"{name}: {int(runs[1])} inputs, {len(list(corpus.iterdir()))} kept for their coverage, nothing found",
        flush=True,
    )
    return True


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("names", nargs="*", default=[])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="streamgate-fuzz-") as folder:
        plain = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
        subprocess.run([sys.executable, "-m", "tests.fuzz.seeds", folder], env=plain, check=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            clean = list(pool.map(lambda name: fuzz(name, given.seconds, Path(folder)), given.names or TARGETS))
    return 0 if all(clean) else 1


if __name__ == "__main__":
    sys.exit(main())
