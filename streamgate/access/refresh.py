"""Refresh tokens: opaque, stored hashed, replaced at each use; a used one that comes back ends the whole family.

A family is what came of one sign-in. A token is 16 bytes of the family's id and a secret of 32 (:func:`secret`), in base64url.
The id is no secret: only what was made here may end a family, and a secret shows that by a MAC in it. A client whose
answer was lost asks again with the token that it has: for a while it gets the same successor, which is kept under
a pad that only who holds the used token can make, so that what is stored opens nothing (RFC 9700 section 4.14.2: reuse is theft).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field, replace
from typing import Literal

from streamgate.errors import StreamGateError

ID = 16
SECRET = 32
RANDOM = 24
RETRY_S = 10
"""How long a token that was used gets the same successor again."""
_LENGTH = 64  # characters of 48 bytes

Outcome = Literal["rotated", "repeated", "reused", "ended"]


@dataclass(frozen=True, slots=True)
class Family:
    """What is stored of a family. Times in s since 1970; ``current`` and ``previous`` are SHA-256 of tokens' secrets."""

    id: bytes
    account: str
    started: int
    expires: int
    current: bytes = field(repr=False)
    previous: bytes = field(default=b"", repr=False)
    sealed: bytes = field(default=b"", repr=False)
    """The current secret, under a pad of the previous one."""
    rotated: float = 0.0
    ended: bool = False

    def encode(self) -> bytes:
        """As it is stored."""
        return json.dumps(
            {
                "id": self.id.hex(),
                "account": self.account,
                "started": self.started,
                "expires": self.expires,
                "current": self.current.hex(),
                "previous": self.previous.hex(),
                "sealed": self.sealed.hex(),
                "rotated": self.rotated,
                "ended": self.ended,
            }
        ).encode()

    @classmethod
    def decode(cls, row: bytes) -> Family:
        """As it was stored; raises ValueError for what is no such row."""
        try:
            told = json.loads(row)
            blobs = {name: bytes.fromhex(told[name]) for name in ("id", "current", "previous", "sealed")}
            return cls(
                account=str(told["account"]),
                started=int(told["started"]),
                expires=int(told["expires"]),
                rotated=float(told["rotated"]),
                ended=bool(told["ended"]),
                **blobs,
            )
        except (KeyError, TypeError) as error:
            raise ValueError("no row of a family of refresh tokens") from error


@dataclass(frozen=True, slots=True)
class Rotation:
    """What came of a token: the family to store in place of the old one (where it changed), and the token to answer with.

    ``rotated``: a new one; ``repeated``: the one that was given before; ``reused`` (the family has ended now) and ``ended``: none.
    """

    family: Family
    outcome: Outcome
    token: str = field(default="", repr=False)


def secret(key: bytes, id: bytes, random: bytes) -> bytes:
    """A token's secret: 24 random bytes and the first 8 of an HMAC by ``key``, which the deployment keeps, of the family's id and them."""
    return random + hmac.digest(key, b"refresh\0" + id + random, "sha256")[: SECRET - RANDOM]


def begin(account: str, *, id: bytes, secret: bytes, now: int, life: int) -> tuple[Family, str]:
    """A family and its first token; ``id``: 16 random bytes, ``secret``: of :func:`secret`."""
    if len(id) != ID or len(secret) != SECRET:
        raise StreamGateError("internal", "a family needs 16 random bytes, a token 32")
    return Family(id, account, now, now + life, _digest(secret)), _write(id, secret)


def parse(token: str, key: bytes) -> tuple[bytes, bytes]:
    """A family's id and the token's secret; raises ``refresh_invalid`` for what was not made with ``key``, too."""
    try:
        raw = urlsafe_b64decode(token) if len(token) == _LENGTH and token.isascii() else b""
    except ValueError:
        raw = b""
    if len(raw) != ID + SECRET or _write(raw[:ID], raw[ID:]) != token:
        raise StreamGateError("refresh_invalid")
    if not hmac.compare_digest(secret(key, raw[:ID], raw[ID : ID + RANDOM]), raw[ID:]):
        raise StreamGateError("refresh_invalid")
    return raw[:ID], raw[ID:]


def rotate(family: Family, secret: bytes, *, fresh: bytes, now: float) -> Rotation:
    """Use the token with ``secret``; ``fresh``: the successor's (:func:`secret`).

    The caller stores ``family`` only if nobody else has changed the row meanwhile, and asks again otherwise.
    """
    if family.ended or now >= family.expires:
        return Rotation(family, "ended")
    given = _digest(secret)
    if hmac.compare_digest(given, family.current):
        after = replace(family, current=_digest(fresh), previous=given, sealed=_pad(secret, fresh), rotated=now)
        return Rotation(after, "rotated", _write(family.id, fresh))
    # A clock that went back makes no token young again: the time must lie behind.
    if hmac.compare_digest(given, family.previous) and 0 <= now - family.rotated <= RETRY_S:
        return Rotation(family, "repeated", _write(family.id, _pad(secret, family.sealed)))
    return Rotation(end(family), "reused")


def end(family: Family) -> Family:
    """The family when it has ended: nothing of its tokens is kept but what tells a used one."""
    return replace(family, ended=True, sealed=b"")


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def _pad(secret: bytes, text: bytes) -> bytes:
    """``text`` (32 bytes) under a pad of ``secret``, and back. A secret pads one successor and no other."""
    pad = hmac.digest(secret, b"streamgate refresh successor", "sha256")
    return bytes(a ^ b for a, b in zip(pad, text, strict=True))


def _write(id: bytes, secret: bytes) -> str:
    return urlsafe_b64encode(id + secret).decode()
