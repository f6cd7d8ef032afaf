"""Access tokens of accounts: JWT (RFC 7519) of type ``at+jwt`` (RFC 9068), signed with EdDSA (RFC 8037) and nothing else.

What a token says of keys (``jku``, ``jwk``, ``x5u`` …) is never looked at: ``kid`` picks one of those that are known here.
PyNaCl does the arithmetic; it is imported where the first key is used, and where it is not installed that is ``config_invalid``.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from streamgate.errors import StreamGateError

if TYPE_CHECKING:
    from types import ModuleType

    from nacl.signing import SigningKey

TYPE = "at+jwt"
MAX_LENGTH = 2048
SEED = 32
_PART = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Signer:
    """An Ed25519 key (RFC 8032) by its seed, which is in no repr."""

    kid: str
    seed: bytes = field(repr=False)

    @cached_property
    def _key(self) -> SigningKey:
        key: SigningKey = _nacl().SigningKey(self.seed)
        return key

    @cached_property
    def public(self) -> bytes:
        """The public key, 32 bytes."""
        return bytes(self._key.verify_key)

    def sign(self, message: bytes) -> bytes:
        """A signature, 64 bytes."""
        return self._key.sign(message).signature

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a key is not pickled")


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What a token says that was found right. ``account`` is its sub, ``family`` the id of its family of refresh tokens."""

    account: str
    family: str
    issued: int
    expires: int
    id: str


def issue(
    signer: Signer, *, issuer: str, audience: str, account: str, family: str, id: str, now: int, life: int
) -> str:
    """A token for ``account``, for ``life`` s from ``now`` (s since 1970); ``id``: random, of any form."""
    header = {"alg": "EdDSA", "typ": TYPE, "kid": signer.kid}
    claims = {
        "iss": issuer,
        "aud": audience,
        "sub": account,
        "client_id": "streamgate",
        "iat": now,
        "exp": now + life,
        "jti": id,
        "sid": family,
    }
    message = f"{_encode(_json(header))}.{_encode(_json(claims))}"
    return f"{message}.{_encode(signer.sign(message.encode()))}"


def verify(token: str, keys: Mapping[str, bytes], *, issuer: str, audience: str, now: int) -> AccessToken:
    """What ``token`` says, if one of ``keys`` (kid → public key) has signed it and it counts ``now``.

    Raises ``sign_in_required`` for everything else, a playback token among it; the detail tells what is wrong. No skew is
    allowed for: who makes tokens and who reads them have one clock.
    """
    parts = token.split(".") if len(token) <= MAX_LENGTH else []
    if len(parts) != 3 or not all(_PART.fullmatch(part) for part in parts):
        raise _wrong("it is no access token")
    header, claims, signature = _header(parts[0]), parts[1], _decode(parts[2])
    if header.get("alg") != "EdDSA" or header.get("typ") != TYPE or "crit" in header:
        raise _wrong("it is no access token of this kind")
    kid = header.get("kid")
    key = keys.get(kid) if isinstance(kid, str) else None
    if key is None:
        raise _wrong("its key is not known")
    if not _signed(key, f"{parts[0]}.{claims}".encode(), signature):
        raise _wrong("it was not made with its key")
    return _claims(_object(claims), issuer, audience, now)


def _claims(told: dict[str, Any], issuer: str, audience: str, now: int) -> AccessToken:
    issued, expires = told.get("iat"), told.get("exp")
    texts = [told.get(name) for name in ("iss", "aud", "sub", "sid", "jti")]
    if not all(isinstance(text, str) and text for text in texts) or type(issued) is not int or type(expires) is not int:
        raise _wrong("a claim is missing, or of another type")
    if texts[0] != issuer or texts[1] != audience:
        raise _wrong("it is of another issuer, or for others")
    if now >= expires:
        raise _wrong("it has expired")
    return AccessToken(str(texts[2]), str(texts[3]), issued, expires, str(texts[4]))


def _signed(key: bytes, message: bytes, signature: bytes) -> bool:
    signing = _nacl()
    if len(signature) != 64:
        return False
    try:
        signing.VerifyKey(key).verify(message, signature)
    except signing.exc.BadSignatureError:
        return False
    return True


def _nacl() -> ModuleType:
    try:
        import nacl.signing
    except ImportError:
        raise StreamGateError("config_invalid", "accounts need the extra: pip install 'streamgate[control]'") from None
    return nacl.signing


@lru_cache(64)
def _header(part: str) -> dict[str, Any]:
    """A header is that of all tokens of its key."""
    return _object(part)


def _object(part: str) -> dict[str, Any]:
    try:
        told = _READER.decode(_decode(part).decode())
    except (ValueError, RecursionError):
        raise _wrong("it is no access token") from None
    if not isinstance(told, dict):
        raise _wrong("it is no access token")
    return told


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name twice")
    return table


def _never(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


_READER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_never)


def _json(table: Mapping[str, object]) -> bytes:
    return json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(part: str) -> bytes:
    try:
        data = urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        raise _wrong("it is no access token") from None
    if _encode(data) != part:  # bits that nothing uses
        raise _wrong("it is no access token")
    return data


def _wrong(detail: str) -> StreamGateError:
    return StreamGateError("sign_in_required", f"access token: {detail}")
