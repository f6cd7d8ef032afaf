"""Sample entries for the codec tests: pulled out of MP4 files, and built by hand."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import av


def box(kind: bytes, payload: bytes = b"") -> bytes:
    """A box."""
    return struct.pack(">I", 8 + len(payload)) + kind + payload


def walk(data: bytes, start: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of the boxes of ``data``."""
    while start + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, start)
        if size == 1:
            size = struct.unpack_from(">Q", data, start + 8)[0]
        size = size or len(data) - start
        yield kind, start, start + size
        start += size


def _find(data: bytes, *path: bytes) -> Iterator[bytes]:
    for kind, start, end in walk(data, 8):
        if kind == path[0]:
            found = data[start:end]
            yield from _find(found, *path[1:]) if len(path) > 1 else (found,)


def entries(path: Path) -> list[tuple[str, bytes]]:
    """Handler and first sample entry of every track of an MP4 file."""
    data = path.read_bytes()
    moov = next(data[start:end] for kind, start, end in walk(data) if kind == b"moov")
    found = []
    for media in _find(moov, b"trak", b"mdia"):
        handler = next(_find(media, b"hdlr"))[16:20].decode()
        stsd = next(_find(media, b"minf", b"stbl", b"stsd"))
        size = int.from_bytes(stsd[16:20])
        found.append((handler, stsd[16 : 16 + size]))
    return found


def first_samples(path: Path) -> list[bytes]:
    """The first packet of every stream, as libav reads it."""
    with av.open(str(path)) as source:
        first: dict[int, bytes] = {}
        for packet in source.demux():
            if packet.size:
                first.setdefault(packet.stream_index, bytes(packet))
        return [first[n] for n in range(len(source.streams))]


def video(kind: bytes, *children: bytes, width: int = 640, height: int = 360) -> bytes:
    """A video sample entry with these child boxes."""
    fixed = struct.pack(">6xH16xHHIIIH32xHh", 1, width, height, 72 << 16, 72 << 16, 0, 1, 24, -1)
    return box(kind, fixed + b"".join(children))


def audio(
    kind: bytes, *children: bytes, rate: int = 48000, channels: int = 2, version: int = 0, extra: bytes = b""
) -> bytes:
    """A sound sample entry with these child boxes; ``extra`` are QuickTime's fields of versions 1 and 2."""
    fixed = struct.pack(">6xHH6xHH4xI", 1, version, channels, 16, rate << 16)
    return box(kind, fixed + extra + b"".join(children))


def esds(specific: str, object_type: int = 0x40) -> bytes:
    """An esds box with this DecoderSpecificInfo (hex), written with one-byte sizes."""
    data = bytes.fromhex(specific)
    config = bytes([object_type, 0x15]) + bytes(11) + (bytes([5, len(data)]) + data if data else b"")
    stream = b"\0\1\0" + bytes([4, len(config)]) + config + b"\6\1\2"
    return box(b"esds", bytes(4) + bytes([3, len(stream)]) + stream)


def mp4a(specific: str, object_type: int = 0x40, rate: int = 48000) -> bytes:
    """An mp4a sample entry with this DecoderSpecificInfo (hex)."""
    return audio(b"mp4a", esds(specific, object_type), rate=rate)


def nclx(primaries: int, transfer: int, matrix: int, full: bool = False) -> bytes:
    """A colr box with code points."""
    return box(b"colr", b"nclx" + struct.pack(">HHHB", primaries, transfer, matrix, 0x80 * full))


def hvcc(profile: int, constraints: str, *, flags: int, level: int = 93, space: int = 0, high: bool = False) -> bytes:
    """An hvcC box without parameter sets."""
    head = bytes([1, space << 6 | high << 5 | profile]) + struct.pack(">I", flags) + bytes.fromhex(constraints)
    return box(b"hvcC", head + bytes([level]) + bytes.fromhex("f000fcfdf8f800000f00"))


def children(entry: bytes, fixed: int = 86) -> dict[bytes, bytes]:
    """Payloads of the child boxes behind the fixed part (78 + 8 bytes for video, 36 for sound)."""
    return {kind: entry[start + 8 : end] for kind, start, end in walk(entry, fixed)}


def without(entry: bytes, *kinds: bytes) -> bytes:
    """A video sample entry without these child boxes."""
    kept = b"".join(entry[start:end] for kind, start, end in walk(entry, 86) if kind not in kinds)
    return box(entry[4:8], entry[8:86] + kept)
