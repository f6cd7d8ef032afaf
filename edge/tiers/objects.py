"""An object of the disk tier: one file, a header that fills the first page and the body behind it."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import zlib
from collections.abc import Callable
from hashlib import blake2b

from edge.entries import Entry
from streamgate.errors import StreamGateError

# Behind a whole page the body lies in the page cache as sendfile likes it.
HEADER = 4096
# The end of that page is never read: while the file grows, its leader's address is there.
ADDRESS = 256
_MAGIC = b"SGobj\x00\x001"
# Magic, length of the fields, CRC-32 of the body, bytes of the body; the CRC-32 of all that and the fields comes last.
_FRONT = struct.Struct("<8sIIQ")
_CRC = struct.Struct("<I")
_BLOCK = 1024 * 1024


class Corrupt(Exception):
    """The file is not what was once written: a miss."""


class FileBody:
    """The body of an open object. The file stays open as long as somebody holds this, even where its name is gone."""

    __slots__ = ("__weakref__", "crc", "digest", "fd", "number", "offset", "on_failure", "size")
    kind = "disk"
    whole = False

    def __init__(self, fd: int, size: int, crc: int, digest: str, number: int = 0) -> None:
        self.fd = fd
        self.offset = HEADER
        self.size = size
        self.crc = crc
        self.digest = digest
        # Of the last purge that was known when it was begun (edge.purges).
        self.number = number
        self.on_failure: Callable[[FileBody], None] | None = None

    def read(self, start: int, length: int) -> bytes:
        """Bytes [start, start + length); blocking. Raises ``cache_failed`` where the disk has them no more."""
        try:
            return read_exactly(self.fd, self.offset + start, length)
        except StreamGateError:
            self.failed()
            raise

    def failed(self) -> None:
        """The file does not give what it promised: tell who opened it, once; blocking."""
        told, self.on_failure = self.on_failure, None
        if told is not None:
            told(self)

    def verify(self) -> None:
        """Read the whole body; blocking. Raises Corrupt where it is not what was written."""
        crc = 0
        for start in range(0, self.size, _BLOCK):
            try:
                crc = zlib.crc32(self.read(start, min(_BLOCK, self.size - start)), crc)
            except StreamGateError as error:
                raise Corrupt(error.detail) from error
        if crc != self.crc:
            raise Corrupt("the body has another checksum")

    def load(self) -> None:
        """Have the kernel read the body into its page cache, unless it is there: who sends it from there must not wait for a
        disk. Blocking; what cannot be read is noticed by who sends it."""
        with contextlib.suppress(OSError):
            if not self._loaded():
                scratch = bytearray(min(self.size, _BLOCK))
                for start in range(0, self.size, _BLOCK):
                    os.preadv(self.fd, [scratch], self.offset + start)

    def _loaded(self) -> bool:
        """Whether the first and the last whole page are in memory, or nobody can say."""
        last = self.offset + max(self.size - HEADER, 0) // HEADER * HEADER
        try:
            for at in (self.offset, last):
                os.preadv(self.fd, [bytearray(1)], at, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        return True

    def gone(self) -> bool:
        """Whether the object was thrown out of the tier: its file has no name any more."""
        return os.fstat(self.fd).st_nlink == 0

    def __del__(self) -> None:
        os.close(self.fd)


def digest_of(key: str) -> str:
    """The name of the file for ``key``: 32 hexadecimal digits."""
    return blake2b(key.encode(), digest_size=16).hexdigest()


def header(key: str, entry: Entry, crc: int, number: int = 0) -> bytes | None:
    """The front of a finished object's first page; ``number`` is the last purge's. None where the fields do not fit."""
    fields = {
        "key": key,
        "tag": entry.tag,
        "type": entry.media_type,
        "cache": entry.cache_control,
        "compressible": entry.compressible,
        "headers": entry.headers,
        "made": entry.made,
        "number": number,
    }
    text = json.dumps(fields, separators=(",", ":")).encode()
    made = _FRONT.pack(_MAGIC, len(text), crc, entry.size) + text
    made += _CRC.pack(zlib.crc32(made))
    return made if len(made) <= HEADER - ADDRESS else None


def read(fd: int, key: str | None = None) -> tuple[str, Entry]:
    """The key and the entry of an open object, whose descriptor it then owns; the body is not read.

    Raises Corrupt where the header is damaged, the file has another length, or it is not of ``key``; then ``fd`` is
    still the caller's.
    """
    try:
        page = os.pread(fd, HEADER, 0)
    except OSError as error:
        raise Corrupt(os.strerror(error.errno or 0)) from error
    if len(page) != HEADER:
        raise Corrupt("it ends within the header")
    magic, length, crc, size = _FRONT.unpack_from(page)
    end = _FRONT.size + length
    if (
        magic != _MAGIC
        or end + _CRC.size > HEADER - ADDRESS
        or _CRC.unpack_from(page, end)[0] != zlib.crc32(page[:end])
    ):
        raise Corrupt("the header is damaged")
    if os.fstat(fd).st_size != HEADER + size:
        raise Corrupt("it has another length")
    fields = json.loads(page[_FRONT.size : end])
    if key is not None and fields["key"] != key:
        raise Corrupt("it is another object's")
    entry = Entry(
        fields["type"],
        fields["tag"],
        fields["cache"],
        FileBody(fd, size, crc, digest_of(fields["key"]), fields.get("number", 0)),
        fields["compressible"],
        fields["headers"],
        made=fields["made"],
    )
    return fields["key"], entry


def read_exactly(fd: int, at: int, length: int) -> bytes:
    """Bytes [at, at + length) of a file; blocking. Raises ``cache_failed`` where it does not give them all."""
    pieces = []
    while length:
        try:
            piece = os.pread(fd, length, at)
        except OSError as error:
            raise StreamGateError("cache_failed", os.strerror(error.errno or 0)) from error
        if not piece:
            raise StreamGateError("cache_failed", "a file of the disk tier ends too early")
        pieces.append(piece)
        at += len(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
