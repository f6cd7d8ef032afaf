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
    out = bytearray()
    _write(item, out)
    return bytes(out)


def _write(item: Item, out: bytearray) -> None:
    if isinstance(item, str):
        text = item.encode()
        _head(3, len(text), out)
        out += text
    elif isinstance(item, bytes):
        _head(2, len(item), out)
        out += item
    elif isinstance(item, bool):
        raise TypeError("a bool is no item of a token")
    elif isinstance(item, int):
        _head(0, item, out) if item >= 0 else _head(1, -1 - item, out)
    elif isinstance(item, dict):
        _map(item, out)
    elif isinstance(item, float):
        out += b"\xfb" + struct.pack(">d", item)
    elif isinstance(item, Tagged):
        _head(6, item.tag, out)
        _write(item.item, out)
    elif isinstance(item, Mapping):
        _map(item, out)
    else:
        _head(4, len(item), out)
        for each in item:
            _write(each, out)


def _map(item: Mapping[int | str, Item], out: bytearray) -> None:
    _head(5, len(item), out)
    for key, value in item.items():
        _write(key, out)
        _write(value, out)


def _head(major: int, value: int, out: bytearray) -> None:
    if value < 24:
        out.append(major << 5 | value)
        return
    for info, layout in ((24, ">BB"), (25, ">BH"), (26, ">BI"), (27, ">BQ")):
        if value < 1 << 8 * (1 << info - 24):
            out += struct.pack(layout, major << 5 | info, value)
            return
    raise OverflowError(f"{value} has more than 64 bits")
