"""An entry as one value, for a store that other machines read: what it says of itself and its body, in one Zstandard frame.

The frame's checksum (RFC 8878 section 3.1.1) covers all of it. Texts and indexes are compressed; media is as good as
incompressible, and at the level that it gets lies in the frame as it is.
"""

from __future__ import annotations

import json
import re
import struct
import threading
from typing import Any

import zstandard

from edge.compression import CODINGS, IDENTITY
from edge.entries import Entry

# Part of the keys' names: what reads another layout finds nothing.
FORMAT = 1
# What a field of a head may hold (RFC 9110 section 5.5)
_LINE = re.compile(r"[\x20-\x7e\xa0-\xff]*")
_LENGTH = struct.Struct("<I")
_STORED = -100
_COMPRESSED = 3


class Damaged(Exception):
    """The value is not what was once written: a miss."""


class _Codecs(threading.local):
    """One each a thread, for neither may be used by two at once."""

    def __init__(self) -> None:
        self.reading = zstandard.ZstdDecompressor()
        self.storing = zstandard.ZstdCompressor(level=_STORED, write_checksum=True)
        self.compressing = zstandard.ZstdCompressor(level=_COMPRESSED, write_checksum=True)


_codecs = _Codecs()


def pack(key: str, entry: Entry, body: bytes, *, compress: bool) -> bytes:
    """The value for ``entry``, which is called ``key`` and has this ``body``."""
    fields = {
        "key": key,
        "tag": entry.tag,
        "type": entry.media_type,
        "cache": entry.cache_control,
        "compressible": entry.compressible,
        "headers": entry.headers,
        "made": entry.made,
        "coding": entry.coding,
    }
    front = json.dumps(fields, separators=(",", ":")).encode()
    codec = _codecs.compressing if compress else _codecs.storing
    return codec.compress(b"".join((_LENGTH.pack(len(front)), front, body)))


def unpack(key: str, value: bytes, most: int) -> Entry:
    """The entry, its body in memory; raises Damaged for anything that :func:`pack` did not make of ``key``.

    ``most``: the greatest number of bytes that fields and body may take together.
    """
    try:
        frame = zstandard.get_frame_parameters(value)
        if not frame.has_checksum or frame.content_size > most:  # of unknown size: 2**64 - 1
            raise Damaged("it is no frame of ours")
        data = _codecs.reading.decompress(value, allow_extra_data=False)
        end = _LENGTH.size + _LENGTH.unpack_from(data)[0]
        fields: dict[str, Any] = json.loads(data[_LENGTH.size : end])
        if fields["key"] != key:
            raise Damaged("it is another object's")
        _check(fields)
        return Entry(
            fields["type"],
            fields["tag"],
            fields["cache"],
            data[end:],
            fields["compressible"],
            fields["headers"],
            made=fields["made"],
            coding=fields["coding"],
        )
    except (
        zstandard.ZstdError,
        AttributeError,
        struct.error,
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
    ) as error:
        raise Damaged(str(error)) from error


def _check(fields: dict[str, Any]) -> None:
    """Whoever can write there must not put into a head what has no place in one; raises Damaged."""
    headers = fields["headers"]
    texts = [fields["tag"], fields["type"], fields["cache"], fields["coding"], *headers.keys(), *headers.values()]
    if not all(isinstance(text, str) and _LINE.fullmatch(text) for text in texts):
        raise Damaged("a field that no head can hold")
    if fields["coding"] not in (IDENTITY, *CODINGS) or type(fields["compressible"]) is not bool:
        raise Damaged("a coding that is none of ours")
    if type(fields["made"]) is not int or not 0 <= fields["made"] < 2**53:
        raise Damaged("it was made at no time")
