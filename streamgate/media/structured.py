"""Dictionaries of structured fields (RFC 9651), read leniently: a member that is wrong is left out, the others count.

Lenient also in the letters of keys, which players write in capitals too. Dates and display strings are not read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

Bare = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Item:
    """A value with its parameters; ``token``: it was written without quotes."""

    value: Bare
    token: bool = False
    params: dict[str, Bare] = field(default_factory=dict)


Member = Item | tuple[Item, ...]
"""An item, or an inner list of them."""

MAX_KEY = 64  # characters
MAX_ITEMS = 32  # of an inner list
MAX_PARAMS = 4  # of an item
_KEY = re.compile(rf"[A-Za-z*][A-Za-z0-9_.*\-]{{0,{MAX_KEY - 1}}}")
_NUMBER = re.compile(r"-?(?:[0-9]{1,12}\.[0-9]{1,3}|[0-9]{1,15})(?![0-9.])")
_STRING = re.compile(r'"((?:[^"\\\x00-\x1f\x7f]|\\["\\])*)"')
_TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/\-]*")
_BOOLEAN = re.compile(r"\?[01]")
_BLANKS = re.compile(r"[ \t]*")
# What a member that is wrong takes with it: up to a comma outside of quotes and lists, or where these do not end, all.
_WRONG = re.compile(r'(?:"(?:[^"\\]|\\.)*(?:"|\Z)|\((?:[^()"]|"(?:[^"\\]|\\.)*(?:"|\Z))*(?:\)|\Z)|[^,"(])*', re.DOTALL)


class _Wrong(Exception):
    """No member."""


def dictionary(text: str, most: int) -> tuple[dict[str, Member], int]:
    """The members of ``text`` by key, ``most`` at most, and how many were wrong or too many. Of two with a key the last counts."""
    found: dict[str, Member] = {}
    wrong, at = 0, 0
    while True:
        at = _after(_BLANKS, text, at)
        if at == len(text):
            return found, wrong
        try:
            key, member, end = _member(text, at)
            if key not in found and len(found) == most:
                raise _Wrong
            found[key] = member
        except _Wrong:
            wrong += 1
            end = _after(_WRONG, text, at)
        # Behind the comma; empty members say nothing.
        at = end + 1 if end < len(text) else end


def _member(text: str, at: int) -> tuple[str, Member, int]:
    """Key and value of the member at ``at``, and where the comma behind it is, or the end."""
    if text[at] == ",":
        raise _Wrong
    key, at = _take(_KEY, text, at)
    member: Member
    if text[at : at + 1] != "=":
        params, at = _params(text, at)
        member = Item(True, params=params)
    elif text[at + 1 : at + 2] == "(":
        member, at = _list(text, at + 2)
    else:
        member, at = _item(text, at + 1)
    at = _after(_BLANKS, text, at)
    if at < len(text) and text[at] != ",":
        raise _Wrong
    return key, member, at


def _list(text: str, at: int) -> tuple[tuple[Item, ...], int]:
    items: list[Item] = []
    while True:
        at = _after(_BLANKS, text, at)
        if text[at : at + 1] == ")":
            # Parameters of the list as a whole mean nothing here.
            return tuple(items), _params(text, at + 1)[1]
        if len(items) == MAX_ITEMS:
            raise _Wrong
        item, at = _item(text, at)
        if text[at : at + 1] not in (" ", "\t", ")"):
            raise _Wrong
        items.append(item)


def _item(text: str, at: int) -> tuple[Item, int]:
    value, token, at = _bare(text, at)
    params, at = _params(text, at)
    return Item(value, token, params), at


def _params(text: str, at: int) -> tuple[dict[str, Bare], int]:
    params: dict[str, Bare] = {}
    while text[at : at + 1] == ";":
        key, at = _take(_KEY, text, _after(_BLANKS, text, at + 1))
        params[key] = True
        if text[at : at + 1] == "=":
            params[key], _, at = _bare(text, at + 1)
        if len(params) > MAX_PARAMS:
            raise _Wrong
    return params, at


def _bare(text: str, at: int) -> tuple[Bare, bool, int]:
    """A value, whether it is a token, and where it ends."""
    first = text[at : at + 1]
    if first == '"':
        found = _STRING.match(text, at)
        if found is None:
            raise _Wrong
        return re.sub(r"\\(.)", r"\1", found[1]), False, found.end()
    if first == "?":
        told, at = _take(_BOOLEAN, text, at)
        return told == "?1", False, at
    if first == "-" or first.isdigit():
        told, at = _take(_NUMBER, text, at)
        return (float(told) if "." in told else int(told)), False, at
    told, at = _take(_TOKEN, text, at)
    return told, True, at


def _take(pattern: re.Pattern[str], text: str, at: int) -> tuple[str, int]:
    found = pattern.match(text, at)
    if found is None:
        raise _Wrong
    return found[0], found.end()


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found is not None else at
