"""Fuzzes every target for some seconds: ``python tools/variant.py fuzz -m tests.fuzz.run [--seconds N] [NAME…]``.

The kernels are built by clang with AddressSanitizer and coverage, the Python modules are instrumented when they are imported.
As many targets run at once as there are cores. The exit status is 1 where anything was found; what is said of a target,
the input that found something included, stands together.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tests.fuzz.targets import TARGETS

_MEGABYTES = 1500
_SLOW_S = 10
_GRACE_S = 120


def fuzz(name: str, seconds: int, folder: Path) -> tuple[bool, str]:
    """Whether nothing was found, and what there is to say."""
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
    began = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + _GRACE_S)
    except subprocess.TimeoutExpired as error:
        return False, f"{name}: DID NOT END\n{_last((error.stderr or b'').decode(errors='replace'))}"
    runs = re.search(r"Done (\d+) runs", done.stderr)
    if done.returncode or not runs:
        return False, f"{name}: FOUND\n{done.stdout[-2000:]}\n{_last(done.stderr)}"
    took = time.monotonic() - began
    kept = len(list(corpus.iterdir()))
    return True, f"{name}: {int(runs[1])} inputs in {took:.0f} s, {kept} kept for their coverage, nothing found"


def _last(told: str) -> str:
    """The end of what a target said, without the modules that were instrumented before it began."""
    return "\n".join(line for line in told.splitlines() if not line.startswith("INFO: Instrumenting"))[-4000:]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("names", nargs="*", default=[])
    given = parser.parse_args()
    clean = True
    with tempfile.TemporaryDirectory(prefix="streamgate-fuzz-") as folder:
        plain = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
        subprocess.run([sys.executable, "-m", "tests.fuzz.seeds", folder], env=plain, check=True)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            under_way = [pool.submit(fuzz, name, given.seconds, Path(folder)) for name in given.names or TARGETS]
            for done in as_completed(under_way):
                fine, told = done.result()
                clean &= fine
                print(told, flush=True)
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
