"""Keys that are derived from one root: those of sites by generation, and what else the auth role keeps secret.

HKDF with SHA-256 (RFC 5869). Only the auth role holds the root; a site's edges hold keys of that site alone, and nobody who
holds them learns the root, or the key of another site or generation.
"""

from __future__ import annotations

import hmac
import json
import re
from dataclasses import asdict, dataclass, field, replace

from streamgate.access.access_tokens import Signer
from streamgate.access.keys import Defaults, SharedKey
from streamgate.errors import StreamGateError

ROOT = 32
"""Bytes of a root."""
_SALT = b"streamgate keyring 1"
_SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KID = re.compile(r"(?P<site>[A-Za-z0-9][A-Za-z0-9._-]{0,63})\.(?P<generation>[1-9][0-9]{0,8})")


@dataclass(frozen=True, slots=True)
class Generations:
    """Of one site: how many were ever made (a number is never used twice), which signs, and which verify."""

    made: int = 0
    current: int = 0
    """0: none signs yet."""
    verifying: tuple[int, ...] = ()

    def new(self) -> Generations:
        """With one more, the number ``made``, which verifies, and does not sign before :meth:`sign`."""
        return Generations(self.made + 1, self.current, (*self.verifying, self.made + 1))

    def sign(self, generation: int) -> Generations:
        """With ``generation`` to sign; the one before verifies on until it is retired. Raises ``config_invalid``."""
        self._there(generation)
        return replace(self, current=generation)

    def retire(self, generation: int) -> Generations:
        """Without one; raises ``config_invalid`` for the one that signs, and for one that there is not."""
        self._there(generation)
        if generation == self.current:
            raise StreamGateError("config_invalid", "this key signs; make a new one first")
        return replace(self, verifying=tuple(other for other in self.verifying if other != generation))

    def _there(self, generation: int) -> None:
        if generation not in self.verifying:
            raise StreamGateError("config_invalid", f"there is no key of generation {generation}")


@dataclass(frozen=True, slots=True)
class Ring:
    """A root, in no repr, and the generations of sites that were derived from it."""

    root: bytes = field(repr=False)
    sites: dict[str, Generations] = field(default_factory=dict)

    def of(self, site: str) -> Generations:
        """The generations of ``site``."""
        return self.sites.get(site, Generations())


def site_key(root: bytes, site: str, generation: int, defaults: Defaults) -> SharedKey:
    """The key of a site: kid ``{site}.{generation}``. Raises ``config_invalid`` for a name or number that cannot be."""
    if not _SITE.fullmatch(site) or not 1 <= generation < 10**9:
        raise StreamGateError(
            "config_invalid", "a site's name has 1 to 64 letters, digits, dots, - and _; generations begin at 1"
        )
    secret = hkdf(root, b"site\0%s\0%d" % (site.encode(), generation), 32)
    return SharedKey(kid(site, generation).encode(), secret, defaults.issuer, (site,), defaults.require)


def access_signer(root: bytes, site: str, generation: int) -> Signer:
    """The key of accounts' access tokens."""
    return Signer(f"at.{site}.{generation}", hkdf(root, b"access token\0%s\0%d" % (site.encode(), generation), 32))


def access_signers(ring: Ring, site: str) -> list[Signer]:
    """All whose access tokens count, the one that signs last. A site without generations has one signer, too."""
    held = ring.of(site)
    numbers = sorted(held.verifying, key=lambda number: number == held.current)
    return [access_signer(ring.root, site, number) for number in numbers or (0,)]


def subject_secret(root: bytes) -> bytes:
    """What opaque ids of accounts and entitlements are made with (HMAC): the same for all generations, and all sites."""
    return hkdf(root, b"subject", 32)


def kid(site: str, generation: int) -> str:
    """A key's id."""
    return f"{site}.{generation}"


def parse_kid(text: str) -> tuple[str, int] | None:
    """Site and generation that a key's id names; None for ids of other kinds."""
    found = _KID.fullmatch(text)
    return (found["site"], int(found["generation"])) if found else None


def hkdf(root: bytes, info: bytes, size: int) -> bytes:
    """HKDF-SHA256 (RFC 5869) of ``size`` bytes, 32 at most: extract, and the first block of expand."""
    if len(root) != ROOT or not 0 < size <= 32:
        raise StreamGateError("internal", f"a root has {ROOT} bytes, and a key that is derived from it at most 32")
    return hmac.digest(hmac.digest(_SALT, root, "sha256"), info + b"\x01", "sha256")[:size]


def write_generations(sites: dict[str, Generations]) -> str:
    """What is kept of generations; no secret."""
    return json.dumps({site: asdict(held) for site, held in sorted(sites.items())}, indent=2) + "\n"


def read_generations(text: str) -> dict[str, Generations]:
    """Read what :func:`write_generations` wrote; raises ValueError."""
    told = json.loads(text)
    if not isinstance(told, dict):
        raise ValueError("no table of sites")
    return {site: _generations(site, held) for site, held in told.items()}


def _generations(site: str, held: object) -> Generations:
    if not _SITE.fullmatch(site) or not isinstance(held, dict) or held.keys() != {"made", "current", "verifying"}:
        raise ValueError("no table of sites")
    made, current, verifying = held["made"], held["current"], held["verifying"]
    if not isinstance(verifying, list) or not all(type(number) is int for number in (made, current, *verifying)):
        raise ValueError("no table of generations")
    if not all(1 <= number <= made for number in verifying) or (current and current not in verifying):
        raise ValueError("no table of generations")
    return Generations(made, current, tuple(verifying))
