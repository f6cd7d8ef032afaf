"""Accounts of a file, and passwords: scrypt (RFC 7914), and nothing of a password that is kept.

::

    [accounts]
    ada = "scrypt$16384$8$5$SALT$HASH"     # made by `streamgate accounts hash`
"""

from __future__ import annotations

import hashlib
import hmac
import re
import tomllib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field

from streamgate.errors import StreamGateError

SALT = 16
MAX_PASSWORD = 1024
"""Bytes of a password in UTF-8, at most."""
MAX_ACCOUNTS = 100_000
# 16 MiB and some 0.2 s: as good as OWASP's first choice, in an eighth of its memory.
_COST, _BLOCK, _PARALLEL = 2**14, 8, 5
_MAX_MEMORY = 128 * 2**20
_BYTES = 32
_HASH = re.compile(r"scrypt\$([0-9]{1,8})\$([0-9]{1,3})\$([0-9]{1,3})\$([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """What is kept of a password: scrypt's parameters, its salt, and what came of them."""

    cost: int
    block: int
    parallel: int
    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)

    def fits(self, password: str) -> bool:
        """Whether it is of ``password``, in constant time; it takes a fifth of a second of one core, and lets go of the GIL."""
        return hmac.compare_digest(_scrypt(password, self.salt, self.cost, self.block, self.parallel), self.digest)

    def __str__(self) -> str:
        parts = (str(self.cost), str(self.block), str(self.parallel), _text(self.salt), _text(self.digest))
        return "scrypt$" + "$".join(parts)


def hash_password(password: str, salt: bytes) -> PasswordHash:
    """What to keep of ``password``; ``salt``: 16 random bytes. Raises ``request_malformed`` for one that is empty or too long."""
    if not password or len(salt) != SALT:
        raise StreamGateError("request_malformed", f"a password has 1 to {MAX_PASSWORD} bytes")
    return PasswordHash(_COST, _BLOCK, _PARALLEL, salt, _scrypt(password, salt, _COST, _BLOCK, _PARALLEL))


def parse_hash(text: str) -> PasswordHash:
    """Read what ``str`` of a :class:`PasswordHash` has written; raises ValueError, which does not quote it."""
    found = _HASH.fullmatch(text)
    if found is None:
        raise ValueError("not a hash by `streamgate accounts hash`")
    cost, block, parallel = int(found[1]), int(found[2]), int(found[3])
    salt, digest = b64decode(found[4], validate=True), b64decode(found[5], validate=True)
    if not 2**10 <= cost <= 2**17 or cost & cost - 1 or not 1 <= block <= 16 or not 1 <= parallel <= 16:
        raise ValueError("scrypt's parameters are out of bounds")
    if 128 * cost * block > _MAX_MEMORY or len(salt) < 8 or len(salt) > 64 or len(digest) != _BYTES:
        raise ValueError("scrypt's parameters are out of bounds")
    return PasswordHash(cost, block, parallel, salt, digest)


class Accounts:
    """The accounts of a file, by name."""

    def __init__(self, known: Mapping[str, PasswordHash]) -> None:
        self._known = dict(known)
        # For names that there are not: they take as long.
        self._nobody = PasswordHash(_COST, _BLOCK, _PARALLEL, bytes(SALT), bytes(_BYTES))

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def __len__(self) -> int:
        return len(self._known)

    def check(self, name: str, password: str) -> bool:
        """Whether there is an account ``name`` with ``password``; takes as long where there is none. Blocking, some 0.2 s."""
        kept = self._known.get(name)
        fits = (kept or self._nobody).fits(password)
        return fits and kept is not None


def parse(text: bytes, name: str) -> Accounts:
    """Read the file ``name`` of accounts; raises ``config_invalid``, which quotes no hash."""
    try:
        table = tomllib.loads(text.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError):
        raise _wrong(name, "is not TOML") from None
    accounts = table.pop("accounts", {})
    if table or not isinstance(accounts, dict) or len(accounts) > MAX_ACCOUNTS:
        raise _wrong(name, "it holds one table, [accounts], of names and hashes")
    known: dict[str, PasswordHash] = {}
    for account, value in accounts.items():
        if not is_name(account):
            raise _wrong(name, f"{account[:80]!r} is no name of an account")
        try:
            known[account] = parse_hash(value if isinstance(value, str) else "")
        except ValueError as error:
            raise _wrong(name, f"{account}: {error}") from None
    return Accounts(known)


def is_name(text: str) -> bool:
    """Whether an account can be called so: 1 to 64 letters, digits and ._@+-, a letter or digit first."""
    return _NAME.fullmatch(text) is not None


def _scrypt(password: str, salt: bytes, cost: int, block: int, parallel: int) -> bytes:
    given = password.encode("utf-8", "surrogatepass")
    if len(given) > MAX_PASSWORD:
        raise StreamGateError("request_malformed", f"a password has 1 to {MAX_PASSWORD} bytes")
    return hashlib.scrypt(given, salt=salt, n=cost, r=block, p=parallel, maxmem=2 * _MAX_MEMORY, dklen=_BYTES)


def _text(data: bytes) -> str:
    return b64encode(data).decode()


def _wrong(name: str, detail: str) -> StreamGateError:
    return StreamGateError("config_invalid", f"accounts file {name}: {detail}")
