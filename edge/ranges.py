"""Byte ranges (RFC 9110 section 14): one range is served, several are answered with the whole (section 14.2 allows it)."""

from __future__ import annotations

import re

_SPEC = re.compile(r"([0-9]*)-([0-9]*)", re.ASCII)
_HUGE = 10**18


class Unsatisfiable(Exception):
    """The range lies beyond the end: 416 with the current length."""


def select(header: str | None, size: int) -> tuple[int, int] | None:
    """What a Range header asks of ``size`` bytes: (first, one past the last), or None for the whole.

    None also where the header is to be ignored: absent, another unit, broken syntax, several ranges.
    Raises :class:`Unsatisfiable`.
    """
    if header is None:
        return None
    unit, equals, ranges = header.partition("=")
    if not equals or unit.strip(" \t").lower() != "bytes":
        return None
    # Empty list elements are allowed (RFC 9110 section 5.6.1.2).
    specs = [spec.strip(" \t") for spec in ranges.split(",")]
    specs = [spec for spec in specs if spec]
    if len(specs) != 1:
        return None
    found = _SPEC.fullmatch(specs[0])
    if not found or specs[0] == "-":
        return None
    first, last = (_number(digits) for digits in found.groups())
    if first is None:
        assert last is not None
        return _suffix(last, size)
    if last is not None and last < first:
        return None
    if first >= size:
        raise Unsatisfiable
    return (first, size if last is None else min(last + 1, size))


def _suffix(length: int, size: int) -> tuple[int, int] | None:
    if length == 0:
        raise Unsatisfiable
    # A suffix of nothing is satisfiable, but no Content-Range can say so: the (empty) whole.
    return (max(0, size - length), size) if size else None


def _number(digits: str) -> int | None:
    """The value; numbers longer than any file's size become one that is larger than all."""
    if not digits:
        return None
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= 18 else _HUGE
