"""A box walker for the tests of the kernels (ISO/IEC 14496-12 section 4.2)."""

import struct
from collections.abc import Iterator


def boxes(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The boxes of one level: type and content."""
    at = 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        header = 8
        if size == 1:
            size, header = struct.unpack_from(">Q", data, at + 8)[0], 16
        yield kind.decode(), data[at + header : at + size]
        at += size


def find(data: bytes, *path: str) -> bytes:
    """The content of the first box at ``path``, a type a level."""
    for kind in path:
        data = next(content for found, content in boxes(data) if found == kind)
    return data
