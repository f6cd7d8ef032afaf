"""One answer of a server, as it comes over the wire: what is compared before anything is measured."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

HEAD_DIFFERENCE = 50  # bytes by which heads of two servers may differ
_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; ``head`` ends with its empty line."""

    status: int
    head: bytes
    fields: Mapping[str, str]
    body: bytes


def ask(port: int, path: str, headers: Sequence[str] = (), *, tls: bool = False) -> Answer:
    """GET ``path`` on a connection of its own; raises RuntimeError where no whole answer comes."""
    lines = [f"GET {path} HTTP/1.1", f"Host: localhost:{port}", *headers, "", ""]
    with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S) as plain:
        stream = _trusting().wrap_socket(plain) if tls else plain
        with stream:
            stream.sendall("\r\n".join(lines).encode())
            received = b""
            while b"\r\n\r\n" not in received:
                received += _some(stream, path)
            head, _, rest = received.partition(b"\r\n\r\n")
            first, *told = head.decode("latin-1").split("\r\n")
            fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in told)}
            status = int(first.split()[1])
            lengths = [value for name, value in fields.items() if name.lower() == "content-length"]
            size = 0 if status == 304 else int(lengths[0])
            body = bytearray(rest)
            while len(body) < size:
                body += _some(stream, path)
    return Answer(status, head + b"\r\n\r\n", fields, bytes(body))


def same(ours: Answer, theirs: Answer, peer: str) -> str:
    """Say how large both heads are; raises RuntimeError where status or body differ, or heads by too much."""
    if (ours.status, ours.body) != (theirs.status, theirs.body):
        told = f"{ours.status} with {len(ours.body)} bytes, {peer} {theirs.status} with {len(theirs.body)}"
        raise RuntimeError(f"answers differ: ours is {told}")
    sizes = f"heads {len(ours.head)} and {len(theirs.head)} B"
    if abs(len(ours.head) - len(theirs.head)) > HEAD_DIFFERENCE:
        raise RuntimeError(f"{peer}: {sizes}\n{ours.head.decode()}{theirs.head.decode()}")
    return sizes


def _some(stream: socket.socket, path: str) -> bytes:
    data = stream.recv(1 << 20)
    if not data:
        raise RuntimeError(f"the connection ended before {path[-60:]} was whole")
    return data


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
