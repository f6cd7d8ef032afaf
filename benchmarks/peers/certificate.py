"""A certificate for localhost that nobody vouches for."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files of a certificate and its key, in PEM; ``both`` holds the two, as HAProxy wants them."""

    chain: Path
    key: Path
    both: Path


@contextlib.contextmanager
def self_signed() -> Iterator[Certificate]:
    """ECDSA on P-256, which costs a handshake the least; gone at the end."""
    with tempfile.TemporaryDirectory(prefix="streamgate-cert-") as folder:
        made = Certificate(*(Path(folder) / name for name in ("cert.pem", "key.pem", "both.pem")))
        options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
        named = [
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout",
            str(made.key),
            "-out",
            str(made.chain),
        ]
        subprocess.run(["openssl", *options.split(), *named], check=True, capture_output=True)
        made.both.write_bytes(made.chain.read_bytes() + made.key.read_bytes())
        yield made
