"""A real ``streamgate serve`` process on a free port."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

START_S = 30
STOP_S = 15


@contextmanager
def serving(path: Path, settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """Serve ``path`` with ``settings`` in the environment; yields the origin. Stopping it must end the process with status 0."""
    with TemporaryFile("w+") as log:
        command = [sys.executable, "-m", "streamgate.cli", "serve", str(path), "--host", "127.0.0.1", "--port", "0"]
        environment = {**os.environ, **(settings or {})}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as process:
            try:
                assert process.stdout is not None
                origin = next(
                    (found[1] for line in process.stdout if (found := re.match(r"Watch\s+(http://\S+)/", line))), None
                )
                log.seek(0)
                assert origin, f"the server did not start: {log.read()}"
                yield origin
            finally:
                process.terminate()
                process.stdout and process.stdout.close()
                status = process.wait(STOP_S)
            log.seek(0)
            assert status == 0, f"the server ended with {status}: {log.read()[-4000:]}"
