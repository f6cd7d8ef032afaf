"""Common Media Client Data: what players say of themselves with a request (CTA-5004, its versions 1 and 2 by the key ``v``).

It comes in the query as ``CMCD=`` or in four header fields, and is a dictionary of structured fields. Nobody vouches for
it: what is wrong is left out and counted, and nothing raises. Keys of version 2 that belong to reports of their own
(events, responses received) are known as well, for players that send them along.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from streamgate.media.structured import Item, Member, dictionary

FIELDS = ("CMCD-Object", "CMCD-Request", "CMCD-Session", "CMCD-Status")
"""The header fields (CTA-5004 section 3.1)."""
PARAMETER = "CMCD"

MAX_TEXT = 4096
"""Bytes of a field or of the query's parameter as it was sent that are read; of a longer one the members that are whole."""
MAX_KEYS = 64
_MAX_STRING = 1024  # characters, where the specification names no limit
_MAX_CUSTOM = 256

Value = bool | int | float | str | list["Listed"]
Listed = int | str | dict[str, int] | dict[str, str]
Kind = Literal["integer", "decimal", "boolean", "token", "string", "integers", "strings"]


@dataclass(frozen=True, slots=True)
class Key:
    """A key's type; ``versions`` that have it, ``choices`` of a token, the longest string. ``signed``: it may be negative."""

    kind: Kind
    versions: tuple[int, ...] = (1, 2)
    choices: frozenset[str] = frozenset()
    longest: tuple[int, int] = (_MAX_STRING, _MAX_STRING)
    signed: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What a request reported: ``keys`` that are known or custom; how many were ``unknown`` to this version, or ``invalid``.

    Of version 2's lists an item is a number, or ``{object type: number}`` where it is told of what; of ``nor`` a string, or
    ``{"nor": …, "r": range}``.
    """

    version: int
    keys: dict[str, Value]
    unknown: int = 0
    invalid: int = 0

    @property
    def empty(self) -> bool:
        """Whether nothing was reported at all."""
        return not (self.keys or self.unknown or self.invalid)


_OBJECTS = frozenset(("m", "a", "v", "av", "i", "c", "tt", "k", "o"))
_V2 = (2,)


def _token(*choices: str, versions: tuple[int, ...] = (1, 2)) -> Key:
    return Key("token", versions, frozenset(choices))


def _string(first: int, second: int, versions: tuple[int, ...] = (1, 2)) -> Key:
    return Key("string", versions, longest=(first, second))


KEYS: dict[str, Key] = {
    # kbit/s, ms or counts; in version 2 lists by object type
    **dict.fromkeys(("br", "bl", "mtp", "tb"), Key("integers")),
    **dict.fromkeys(("ab", "bsa", "bsd", "bsda", "lab", "lb", "pb", "tab", "tbl", "tpb"), Key("integers", _V2)),
    **dict.fromkeys(("d", "dl", "rtp"), Key("integer")),
    **dict.fromkeys(("dfa", "msd", "sn", "rc", "ttfb", "ttfbb", "ttlb", "ts"), Key("integer", _V2)),
    **dict.fromkeys(("ltc", "pt"), Key("integer", _V2, signed=True)),
    **dict.fromkeys(("bs", "su"), Key("boolean")),
    **dict.fromkeys(("bg", "nr"), Key("boolean", _V2)),
    "pr": Key("decimal", signed=True),
    "ot": Key("token", choices=_OBJECTS),
    "sf": _token("d", "h", "s", "e", "o"),
    "st": _token("v", "l", "ll"),
    "sta": _token("s", "p", "k", "r", "a", "w", "e", "f", "q", "d", versions=_V2),
    "e": Key("token", _V2),
    "sid": _string(64, 64),
    "cid": _string(64, 128),
    "cdn": _string(128, 128, _V2),
    "h": _string(128, 128, _V2),
    "cen": _string(64, 64, _V2),
    **dict.fromkeys(("cs", "url", "smrt", "cmsdd", "cmsds"), Key("string", _V2)),
    "nor": Key("strings"),
    "nrr": Key("string", (1,)),
    "ec": Key("strings", _V2),
    "v": Key("integer"),
}


def of_request(query: str, fields: Mapping[str, str]) -> Report:
    """What a request reported in its raw ``query`` and in those of its header ``fields`` that are named in FIELDS."""
    texts = [bounded(fields[name]) for name in FIELDS if fields.get(name)]
    told = parameter(query)
    return parse([told, *texts] if told else texts)


def parameter(query: str) -> str:
    """What the first ``CMCD=`` of a raw query says, decoded (RFC 3986 section 2.1); "" where there is none."""
    for each in query.split("&"):
        name, equals, value = each.partition("=")
        if equals and name == PARAMETER:
            return unquote(bounded(value, "%2C"), errors="replace")
    return ""


def bounded(text: str, comma: str = ",") -> str:
    """``text``, or of one longer than MAX_TEXT what ends at a comma: half a number is another number."""
    if len(text) <= MAX_TEXT:
        return text
    text = text[:MAX_TEXT]
    return text[: max(text.rfind(","), text.upper().rfind(comma), 0)]


def parse(texts: Iterable[str]) -> Report:
    """The report that these dictionaries make together."""
    members: dict[str, Member] = {}
    invalid = 0
    for text in texts:
        found, wrong = dictionary(text, MAX_KEYS)
        members.update(found)
        invalid += wrong
    told = members.get("v")
    version = told.value if isinstance(told, Item) and type(told.value) is int and told.value > 0 else 1
    read = min(version, 2)
    keys: dict[str, Value] = {}
    unknown = 0
    for name, member in list(members.items())[:MAX_KEYS]:
        key = KEYS.get(name)
        if "-" not in name and (key is None or read not in key.versions):
            unknown += 1
            continue
        value = _custom(member) if key is None else _value(key, member, read)
        if value is None:
            invalid += 1
        else:
            keys[name] = value
    return Report(version, keys, unknown, invalid + max(0, len(members) - MAX_KEYS))


def _value(key: Key, member: Member, version: int) -> Value | None:
    """What a member of a known key says; None where it cannot be."""
    if isinstance(member, tuple):
        return _list(key, member) if version > 1 and key.kind in ("integers", "strings") else None
    value = member.value
    match key.kind:
        case "integer" | "integers":
            return value if type(value) is int and (value >= 0 or key.signed) else None
        case "decimal":
            return value if type(value) in (int, float) else None
        case "boolean":
            return value if type(value) is bool else None
        case "token":
            return value if member.token and (not key.choices or value in key.choices) else None
    longest = key.longest[version - 1]
    return value if isinstance(value, str) and not member.token and len(value) <= longest else None


def _list(key: Key, items: tuple[Item, ...]) -> Value | None:
    listed: list[Listed] = []
    for item in items:
        value = item.value
        if key.kind == "integers" and type(value) is int and value >= 0:
            of = next((name for name in item.params if name in _OBJECTS), None)
            listed.append(value if of is None else {of: value})
        elif key.kind == "strings" and isinstance(value, str) and not item.token and len(value) <= _MAX_STRING:
            part = item.params.get("r")
            listed.append({"nor": value, "r": part[:64]} if isinstance(part, str) else value)
        else:
            return None
    return listed or None


def _custom(member: Member) -> Value | None:
    """What a key with a hyphen says, which only its author understands (CTA-5004 section 3.2)."""
    if isinstance(member, tuple):
        items = [item.value for item in member]
        return items if all(_short(item) for item in items) and items else None  # type: ignore[return-value]
    return member.value if _short(member.value) else None


def _short(value: bool | int | float | str) -> bool:
    return not isinstance(value, str) or len(value) <= _MAX_CUSTOM
