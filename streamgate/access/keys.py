"""Keys of playback tokens: what a key's file says.

::

    kid = "site-eu-1.2"
    secret = "…"              # 32 random bytes, in hex
    issuer = "example.com"    # of a foreign key; where it is absent, and for the next two, the settings count
    audience = ["site-eu-1"]
    require = ["iss", "exp"]
    prefixes = ["/v/shop-"]   # paths that its tokens may open at all; all where absent

A key that verifies also signs, so a file is as good as any token that could be made with it. Of an issuer who signs
(ES256, PS256) the file holds the public key instead of a secret, and names who it is::

    algorithm = "ES256"
    public = '''
    -----BEGIN PUBLIC KEY-----
    …
    '''
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from streamgate.access import foreign
from streamgate.errors import StreamGateError
from streamgate.native import cat

SECRET = 32
# Keys that were published with test vectors: everybody can sign with them.
_PUBLISHED = frozenset(("7ad14021fdc8a526f91421380a6a0a3d7761d317ce222054a65cbbd6a0a88083",))
_NAMES = {"kid", "secret", "algorithm", "public", "issuer", "audience", "require", "prefixes"}
_MAX_PUBLIC = 4096


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for keys whose file does not say otherwise."""

    issuer: str
    audience: tuple[str, ...]
    require: tuple[str, ...] = ("iss", "exp", "cti", "aud")


@dataclass(frozen=True, slots=True)
class SharedKey:
    """A key for HMAC-SHA256 and the rules for its tokens. Its secret is in no repr."""

    kid: bytes
    secret: bytes = field(repr=False)
    issuer: str
    audience: tuple[str, ...]
    require: tuple[str, ...]
    prefixes: tuple[str, ...] = ()
    leased: bool = True
    """Whether it is ours: its tokens have sessions, and those leases."""

    @property
    def algorithm(self) -> str:
        """HS256."""
        return "HS256"

    def verifying(self) -> cat.Key:
        """The kernel's form; raises ``config_invalid``."""
        return cat.Key(
            self.kid,
            self.secret,
            issuer=self.issuer,
            audience=self.audience,
            require=self.require,
            prefixes=self.prefixes,
            leased=self.leased,
        )


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key of an issuer who signs, and the rules for its tokens. ``algorithm``: ES256 or PS256; ``public``: PEM."""

    kid: bytes
    algorithm: foreign.Algorithm
    public: str = field(repr=False)
    issuer: str
    audience: tuple[str, ...]
    require: tuple[str, ...]
    prefixes: tuple[str, ...] = ()

    @property
    def leased(self) -> bool:
        """Never: it is not ours."""
        return False

    def verifying(self) -> cat.Key:
        """The kernel's form, which cannot look at signatures; raises ``config_invalid``."""
        return cat.Key(
            self.kid,
            b"",
            issuer=self.issuer,
            audience=self.audience,
            require=self.require,
            prefixes=self.prefixes,
            leased=False,
            algorithm=foreign.NUMBERS[self.algorithm],
        )


AnyKey = SharedKey | PublicKey


def parse(text: bytes, name: str, defaults: Defaults) -> AnyKey:
    """Read a key's file called ``name``; raises ``config_invalid``, which never tells what the secret is."""
    try:
        table = tomllib.loads(text.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError):
        # Not the parser's words: they may quote the line.
        raise _wrong(name, "is not TOML") from None
    if unknown := sorted(table.keys() - _NAMES):
        raise _wrong(name, f"{unknown[0]!r} is not known; there are {', '.join(sorted(_NAMES))}")
    kid, issuer = _text(name, table, "kid", ""), _text(name, table, "issuer", defaults.issuer)
    audience = _texts(name, table, "audience", defaults.audience)
    require = _texts(name, table, "require", defaults.require)
    prefixes = _texts(name, table, "prefixes", ())
    if not kid:
        raise _wrong(name, "kid must be there")
    key: AnyKey
    if table.keys() & {"algorithm", "public"}:
        if issuer == defaults.issuer or "secret" in table:
            raise _wrong(name, "a public key has no secret, and is of another issuer")
        key = PublicKey(kid.encode(), *_public(name, table), issuer, audience, require, prefixes)
    else:
        ours = issuer == defaults.issuer
        key = SharedKey(kid.encode(), _secret(name, table), issuer, audience, require, prefixes, ours)
    try:
        key.verifying()
    except StreamGateError as error:
        raise _wrong(name, error.detail) from None
    return key


def published(secret: bytes) -> bool:
    """Whether a secret stands in test vectors that everybody has."""
    return sha256(secret).hexdigest() in _PUBLISHED


def write(kid: str, secret: bytes) -> str:
    """The file of a key of one's own."""
    return f"# A key of playback tokens: who reads it can make them.\nkid = {json.dumps(kid)}\nsecret = {json.dumps(secret.hex())}\n"


def _wrong(name: str, detail: str) -> StreamGateError:
    return StreamGateError("config_invalid", f"key file {name}: {detail}")


def _secret(name: str, table: dict[str, Any]) -> bytes:
    try:
        secret = bytes.fromhex(_text(name, table, "secret", ""))
    except ValueError:
        raise _wrong(name, "secret: write it in hex") from None
    if len(secret) < SECRET:
        raise _wrong(name, f"kid and secret must be there, the secret with {SECRET} bytes or more")
    if published(secret):
        raise _wrong(name, "this secret is published with test vectors; everybody can sign with it")
    return secret


def _public(name: str, table: dict[str, Any]) -> tuple[foreign.Algorithm, str]:
    public = table.get("public")
    algorithm = next((known for known in foreign.NUMBERS if known == table.get("algorithm")), None)
    if algorithm is None:
        raise _wrong(name, f"algorithm: one of {', '.join(foreign.NUMBERS)}")
    if not isinstance(public, str) or len(public) > _MAX_PUBLIC:
        raise _wrong(name, "public: a public key in PEM")
    try:
        foreign.load(public, algorithm)
    except ValueError as error:
        raise _wrong(name, f"public: {error}") from None
    return algorithm, public


def _text(name: str, table: dict[str, Any], key: str, absent: str) -> str:
    value = table.get(key, absent)
    if not isinstance(value, str) or len(value) > 200:
        raise _wrong(name, f"{key}: a text of at most 200 characters")
    return value


def _texts(name: str, table: dict[str, Any], key: str, absent: tuple[str, ...]) -> tuple[str, ...]:
    value = table.get(key, absent)
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise _wrong(name, f"{key}: a list of texts")
    return tuple(value)
