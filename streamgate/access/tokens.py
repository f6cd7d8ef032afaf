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

from streamgate.access.cbor import Item, Tagged, encode
from streamgate.access.keys import SharedKey
from streamgate.errors import StreamGateError
from streamgate.native.cat import CLAIMS

SESSION = 16
"""Bytes of a session's id; cti is that and up to MAX_COUNTER bytes that tell renewed tokens of a session apart."""
MAX_COUNTER = 8
MAX_TOKEN = 1024

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_ASSET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NAMES = {key: name for name, key in CLAIMS.items()}
_TAGS = {4: 52, 6: 54}  # RFC 9164


@dataclass(frozen=True, slots=True)
class Renewal:
    """catr: how a player is to renew its token. ``kind``: 0 automatic, 1 cookie, 2 header, 3 redirect; the others in seconds."""

    kind: int
    add: int
    deadline: int | None = None


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
        told: dict[int | str, Item] = {0: renewal.kind, 1: renewal.add}
        claims[CLAIMS["catr"]] = told if renewal.deadline is None else {**told, 2: renewal.deadline}
    return sign(key, claims)


def sign(key: SharedKey, claims: Mapping[int | str, Item]) -> str:
    """Any claims as a token (RFC 9052 section 6.3); raises ``token_too_long``."""
    protected, payload = encode({1: 5}), encode(claims)
    mac = hmac.digest(key.secret, encode(["MAC0", protected, b"", payload]), "sha256")
    message = encode(Tagged(61, Tagged(17, [protected, {4: key.kid}, payload, mac])))
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


def _shown(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): _shown(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(inner) for inner in value]
    return value
