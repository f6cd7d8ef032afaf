"""Making playback tokens: Common Access Tokens (CTA-5007) in COSE_Mac0 with HMAC-SHA256, and reading them for people.

Times and random bytes come in as parameters; verifying is the kernel's work (:mod:`streamgate.native.cat`).
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from streamgate.access.cbor import Item, Tagged, encode
from streamgate.access.keys import SharedKey
from streamgate.errors import StreamGateError
from streamgate.native.cat import CLAIMS

SESSION = 16
"""Bytes of a session's id; cti is that and up to MAX_COUNTER bytes that tell renewed tokens of a session apart."""
MAX_COUNTER = 8
MAX_TOKEN = 1024
NAME = "CTA-Common-Access-Token"
"""The header, and the parameter of a query, in exactly this spelling."""
COOKIE = NAME.lower()
"""The cookie as we set it."""
AUTOMATIC, BY_COOKIE, BY_HEADER, BY_REDIRECT = range(4)
"""Types of catr (CTA-5007): how who presents a token is given the next."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_ASSET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NAMES = {key: name for name, key in CLAIMS.items()}
_TAGS = {4: 52, 6: 54}  # RFC 9164
_PROTECTED = encode({1: 5})
_SIGNED = encode(["MAC0", _PROTECTED, b"", b""])[:-1]
"""What is signed, up to the payload."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """catr: how a token is renewed. ``kind``: AUTOMATIC and so on; ``add``: seconds from then to the next token's end, and
    ``deadline``: before this one's, when it is to be done. ``cookie`` and ``header`` are names, "" for ours; ``status``: a
    redirect's.
    """

    kind: int
    add: int
    deadline: int | None = None
    cookie: str = ""
    header: str = ""
    status: int = 302

    @classmethod
    def by(cls, carriage: str, life: int) -> Self | None:
        """What a token of ours says that lives ``life`` seconds in a ``cookie`` or a ``header``; None: it is not renewed."""
        ahead = life - int(RENEW_AT * life)
        if carriage == "cookie":
            return cls(BY_COOKIE, life, ahead, cookie=COOKIE)
        return cls(BY_HEADER, life, ahead, header=NAME) if carriage == "header" else None

    @classmethod
    def of(cls, claims: Mapping[object, object]) -> Self | None:
        """What a token's claims say that was found good; None where they say nothing."""
        told = claims.get(CLAIMS["catr"])
        if not isinstance(told, dict):
            return None
        return cls(told[0], told[1], told.get(2), told.get(3, ""), told.get(4, ""), told.get(7, 302))

    def claim(self) -> Mapping[int | str, Item]:
        """The claim's value."""
        told: dict[int | str, Item] = {0: self.kind, 1: self.add}
        more: tuple[tuple[int, Item | None], ...] = (
            (2, self.deadline),
            (3, self.cookie or None),
            (4, self.header or None),
            (7, None if self.status == 302 else self.status),
        )
        return told | {key: value for key, value in more if value is not None}


RENEW_AT = 0.6
"""Part of a token's life after which it is renewed."""


def mint(
    key: SharedKey,
    *,
    asset: str,
    session: bytes,
    expires: int,
    counter: bytes = b"",
    starts: int | None = None,
    subject: str | None = None,
    methods: Sequence[str] = (),
    networks: Sequence[Network] = (),
    renewal: Renewal | None = None,
) -> str:
    """A token that opens ``asset`` and nothing else, in base64url without padding.

    ``session``: 16 random bytes, the same for all tokens of one session; ``expires`` and ``starts`` in s since 1970.
    ``subject`` is readable by everybody on the way. Without ``methods`` and ``networks`` neither is restricted.
    Raises ``asset_not_found`` for what is no asset's id, ``token_malformed`` for a session, a counter or times that cannot
    be, and ``token_too_long``.
    """
    if not _ASSET.fullmatch(asset):
        raise StreamGateError("asset_not_found", f"{asset!r} is no asset's id")
    if len(session) != SESSION or len(counter) > MAX_COUNTER:
        raise StreamGateError("token_malformed", f"a session has {SESSION} bytes, a counter at most {MAX_COUNTER}")
    if not 0 <= (starts or 0) <= expires <= 2**53:
        raise StreamGateError("token_malformed", "a token cannot end at that time")
    claims: dict[int | str, Item] = {CLAIMS["iss"]: key.issuer}
    if subject is not None:
        claims[CLAIMS["sub"]] = subject
    if key.audience:
        claims[CLAIMS["aud"]] = key.audience[0] if len(key.audience) == 1 else key.audience
    claims[CLAIMS["exp"]] = expires
    if starts is not None:
        claims[CLAIMS["nbf"]] = starts
    claims[CLAIMS["cti"]] = session + counter
    claims[CLAIMS["catv"]] = 1
    if networks:
        claims[CLAIMS["catnip"]] = [_network(network) for network in networks]
    claims[CLAIMS["catu"]] = {3: {1: f"/v/{asset}/"}}
    if methods:
        claims[CLAIMS["catm"]] = list(methods)
    if renewal is not None:
        claims[CLAIMS["catr"]] = renewal.claim()
    return sign(key, claims)


def renewed(key: SharedKey, claims: Mapping[object, object], *, expires: int) -> str:
    """The token that follows the one with these claims (:func:`streamgate.native.cat.decode`) in its session.

    All that it says stays but its end, and the counter behind its session's id, which rises; who is given the next token
    twice with the same ``expires`` has one. Raises ``token_malformed`` where it names no session, the counter has come to its
    end, or a claim is none that we make; and ``token_too_long``.
    """
    cti = claims.get(CLAIMS["cti"])
    if not isinstance(cti, bytes) or len(cti) < SESSION:
        raise StreamGateError("token_malformed", "a token that names no session")
    counter = int.from_bytes(cti[SESSION:]) + 1
    size = max(1, -(-counter.bit_length() // 8))
    if size > MAX_COUNTER:
        raise StreamGateError("token_malformed", "a session's tokens have no more numbers")
    told = {name: _item(value) for name, value in claims.items() if isinstance(name, int | str)}
    told |= {CLAIMS["iss"]: key.issuer, CLAIMS["exp"]: expires, CLAIMS["cti"]: cti[:SESSION] + counter.to_bytes(size)}
    return sign(key, told)


def sign(key: SharedKey, claims: Mapping[int | str, Item]) -> str:
    """Any claims as a token (RFC 9052 section 6.3); raises ``token_too_long``."""
    payload = encode(claims)
    mac = hmac.digest(key.secret, _SIGNED + encode(payload), "sha256")
    message = encode(Tagged(61, Tagged(17, [_PROTECTED, {4: key.kid}, payload, mac])))
    token = urlsafe_b64encode(message).rstrip(b"=").decode()
    if len(token) > MAX_TOKEN:
        raise StreamGateError("token_too_long")
    return token


def named(claims: Mapping[object, object]) -> dict[str, object]:
    """Claims by their names, for people: bytes in hex, keys without a name as they are."""
    return {
        _NAMES.get(key, str(key)) if isinstance(key, int) else str(key): _shown(value) for key, value in claims.items()
    }


def _network(network: Network) -> Tagged:
    """An address, or [prefix length, bytes] in full length, which all readers understand."""
    whole = network.prefixlen == network.max_prefixlen
    packed = network.network_address.packed
    return Tagged(_TAGS[network.version], packed if whole else [network.prefixlen, packed])


def _item(value: object) -> Item:
    """An item that was read, to be written again."""
    if isinstance(value, tuple):
        return Tagged(value[0], _item(value[1]))
    if isinstance(value, dict):
        return {key: _item(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_item(inner) for inner in value]
    if isinstance(value, bool) or not isinstance(value, int | float | str | bytes):
        raise StreamGateError("token_malformed", "a token of ours holds no such item")
    return value


def _shown(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): _shown(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(inner) for inner in value]
    return value
