"""Writing CBOR in its shortest form (RFC 8949 section 4.2.1, but maps keep their order): what a token needs, and no more."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Item: TypeAlias = "int | float | str | bytes | Tagged | Sequence[Item] | Mapping[int | str, Item]"


class Tagged:
    """An item under a tag (RFC 8949 section 3.4)."""

    def __init__(self, tag: int, item: Item) -> None:
        self.tag = tag
        self.item = item


def encode(item: Item) -> bytes:
    """``item`` as CBOR. Integers have at most 64 bits; floats take 8 bytes; a bool is no item."""
    if isinstance(item, bool):
        raise TypeError("a bool is no item of a token")
    if isinstance(item, int):
        return _head(0, item) if item >= 0 else _head(1, -1 - item)
    if isinstance(item, float):
        return b"\xfb" + struct.pack(">d", item)
    if isinstance(item, bytes):
        return _head(2, len(item)) + item
    if isinstance(item, str):
        text = item.encode()
        return _head(3, len(text)) + text
    if isinstance(item, Tagged):
        return _head(6, item.tag) + encode(item.item)
    if isinstance(item, Mapping):
        return _head(5, len(item)) + b"".join(encode(key) + encode(value) for key, value in item.items())
    return _head(4, len(item)) + b"".join(map(encode, item))


def _head(major: int, value: int) -> bytes:
    if value < 24:
        return bytes([major << 5 | value])
    for info, layout in ((24, ">BB"), (25, ">BH"), (26, ">BI"), (27, ">BQ")):
        if value < 1 << 8 * (1 << info - 24):
            return struct.pack(layout, major << 5 | info, value)
    raise OverflowError(f"{value} has more than 64 bits")
