"""Grants and sessions: the rows that stand between a policy and a playback token.

A **grant** says that a policy was satisfied: by whom, by what, for which assets, until when. Its **epoch** rises when it ends,
and a session carries the epoch that it was made under: what was made before counts no longer, whoever made it meanwhile.
A **session** is one viewing: all tokens of it carry its id, and it ends at its cap at the latest.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from streamgate.errors import StreamGateError

ID_BYTES = 16
GRACE_S = 30
"""Time that a token still counts after its exp."""

State = Literal["pending", "live", "ended"]
Carriage = Literal["path", "cookie", "header"]
CARRIAGES: tuple[Carriage, ...] = ("path", "cookie", "header")
_STATES: tuple[State, ...] = ("pending", "live", "ended")
_RANDOM_BYTES = 10
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"((?:{_OCTET}\.){{3}}){_OCTET}")
_JSON = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Grant:
    """``account`` and ``entitlements`` are opaque (:func:`opaque`); times in s since 1970. ``policy`` is the kind of policy.

    It covers ``assets``, and where it names a ``collection`` all assets that name the same.
    """

    id: bytes
    account: str
    assets: tuple[str, ...]
    policy: str
    created: int
    cap: int
    entitlements: tuple[str, ...] = ()
    epoch: int = 1
    state: State = "pending"
    collection: str = ""

    def covers(self, account: str, policy: str, collection: str, now: float) -> bool:
        """Whether it lets ``account`` play an asset of this kind of policy and of this collection, at ``now``."""
        return (
            self.state == "live"
            and now < self.cap
            and bool(account)
            and (self.account, self.policy) == (account, policy)
            and bool(collection)
            and self.collection == collection
        )

    def live(self, entitlements: tuple[str, ...]) -> Grant:
        """The grant when its policy was found satisfied, by these entitlements."""
        return replace(self, state="live", entitlements=entitlements)

    def ended(self) -> Grant:
        """The grant when it has ended."""
        return replace(self, state="ended", epoch=self.epoch + 1)

    def encode(self) -> bytes:
        """As it is stored."""
        return _encode({name: getattr(self, name) for name in self.__slots__} | {"id": self.id.hex()})

    @classmethod
    def decode(cls, row: bytes) -> Grant:
        """As it was stored; raises ValueError for what is no such row."""
        told = _decode(row, cls.__slots__)
        told |= {"id": _id(told["id"]), "assets": tuple(told["assets"]), "entitlements": tuple(told["entitlements"])}
        if told["state"] not in _STATES or type(told["epoch"]) is not int:
            raise ValueError("no state of a grant")
        return cls(**told)


@dataclass(frozen=True, slots=True)
class Session:
    """``epoch`` is the grant's when it was made. ``networks``: where it was born and bound to, where the policy wants that.

    ``binding``: ``none``, else it is bound to them: networks (:func:`network_of`), or of ``asn`` their systems
    (:func:`system_of`), one of IPv4 and one of IPv6; ``max_streams`` and ``max_networks``: what its policy allows, 0: any
    number; ``when_full``: where there are as many streams, a new one is refused (``refuse``), or takes the place of the
    oldest (``end_oldest``).
    """

    id: bytes
    grant: bytes
    epoch: int
    asset: str
    account: str
    start: int
    cap: int
    carriage: Carriage
    entitlements: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    binding: str = "none"
    max_streams: int = 0
    max_networks: int = 0
    when_full: str = "refuse"
    state: State = "live"

    def ended(self) -> Session:
        """The session when it has ended."""
        return replace(self, state="ended")

    def bound_to(self, place: str) -> Session:
        """The session bound to a network or a system, too, instead of others of that address family."""
        others = tuple(each for each in self.networks if (":" in each) != (":" in place))
        return replace(self, networks=(*others, place) if place else others)

    def belongs(self, place: str) -> bool:
        """Whether it may be used from a network or a system, "" where that is not known. A system has both families."""
        if self.binding == "none" or not place:
            return self.binding == "none"
        if self.binding == "asn":
            return place.partition(":")[0] in [each.partition(":")[0] for each in self.networks]
        return place in self.networks

    def encode(self) -> bytes:
        """As it is stored."""
        told = {name: getattr(self, name) for name in self.__slots__}
        return _encode(told | {"id": self.id.hex(), "grant": self.grant.hex()})

    @classmethod
    def decode(cls, row: bytes) -> Session:
        """As it was stored; raises ValueError for what is no such row."""
        told = _decode(row, cls.__slots__)
        told |= {name: _id(told[name]) for name in ("id", "grant")}
        told |= {name: tuple(told[name]) for name in ("entitlements", "networks")}
        # Of what many have alike there is one: a hundred thousand of them are in memory.
        told |= {name: sys.intern(told[name]) for name in ("asset", "carriage", "binding", "when_full", "state")}
        if told["carriage"] not in CARRIAGES or told["state"] not in _STATES or type(told["epoch"]) is not int:
            raise ValueError("no such carriage or state of a session")
        return cls(**told)


def judge(session: Session, epoch: int | None, asset: str, place: str | None, now: float) -> None:
    """Whether a session may go on, in ``asset`` and from ``place``: what it is bound to, a network or a system (None: wherever).

    ``epoch``: its grant's, while that is live; None: it is not.

    Raises ``session_ended``, ``session_asset`` or ``session_network``.
    """
    if session.state != "live" or now >= session.cap + GRACE_S:
        raise StreamGateError("session_ended")
    if epoch != session.epoch:
        raise StreamGateError("session_ended", "the session's grant has ended")
    if asset != session.asset:
        raise StreamGateError("session_asset")
    if place is not None and not session.belongs(place):
        raise StreamGateError("session_network")


def fresh_id(random: bytes, now: float) -> bytes:
    """The id of a grant or a session that begins ``now`` (s since 1970): at least 10 random bytes, and then the time in ms."""
    return random[:_RANDOM_BYTES] + int(now * 1000).to_bytes(ID_BYTES - _RANDOM_BYTES)


def by_time(id: bytes) -> str:
    """An id in hex with the time first: rows that are written together lie together, so that fewer pages are written."""
    return (id[_RANDOM_BYTES:] + id[:_RANDOM_BYTES]).hex()


def network_of(address: str) -> str:
    """The network that an address in text counts as: its /24, or its /48; "" for what is no address."""
    if plain := _IPV4.fullmatch(address):
        return f"{plain[1]}0/24"
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return str(ipaddress.ip_network((found, 24 if found.version == 4 else 48), strict=False))


def system_of(number: int, network: str) -> str:
    """What stands for the autonomous system of a network, by its number and the network's address family."""
    return f"AS{number}:6" if ":" in network else f"AS{number}"


def opaque(secret: bytes, kind: str, name: str) -> str:
    """What stands for an account, a browser or an entitlement wherever others may read it: 32 hex digits.

    The same in all of a deployment, which shares ``secret``, and of no use without it.
    """
    return hmac.digest(secret, f"{kind}\0{name}".encode(), hashlib.sha256).hex()[:32]


def _encode(told: Mapping[str, Any]) -> bytes:
    return _JSON.encode(told).encode()


def _decode(row: bytes, names: Collection[str]) -> dict[str, Any]:
    told = json.loads(row)
    if not isinstance(told, dict) or told.keys() != set(names):
        raise ValueError("no such row")
    return cast("dict[str, Any]", told)


def _id(text: object) -> bytes:
    if not isinstance(text, str) or len(text) != 2 * ID_BYTES:
        raise ValueError("no id")
    return bytes.fromhex(text)
