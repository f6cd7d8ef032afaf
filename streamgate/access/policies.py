"""Policies: whom an asset's grants are given to. They stand in ``asset.toml``.

::

    [policy]
    kind = "allow"                        # public: to everybody; allow: to accounts; password: to who knows it
    accounts = ["ada", "bob"]             # allow: these; all of the accounts' file where absent
    password = "scrypt$…"                 # password: its hash, by `streamgate accounts hash`
    session = 14400                       # seconds that a session lasts at most
    max_streams = 3                       # at once, of one entitlement and of one account; 0: any number
    when_full = "refuse"                  # or "end_oldest"
    max_networks = 2                      # of one session within a minute; 0: any number
    binding = "none"                      # a session stays in its "network" (/24, /48), or in its "asn"
    embed_origins = ["https://example.com"]   # pages that may show the player; all where absent
    preview = 30                          # seconds from the beginning that are open to all
    collection = "season-1"               # one grant covers all assets that name the same one

Where something is absent, the settings count. A table ``[policy]`` makes an asset gated, but one of ``public`` alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from streamgate.access.accounts import PasswordHash, is_name, parse_hash
from streamgate.errors import StreamGateError

Kind = Literal["public", "allow", "password"]
Binding = Literal["none", "network", "asn"]
WhenFull = Literal["refuse", "end_oldest"]
MAX_NAMES = 10_000
MAX_ORIGINS = 64
MAX_SESSION_S = 2_592_000

_NAMES = (
    "kind", "accounts", "password", "session", "max_streams", "when_full", "max_networks", "binding", "embed_origins",
    "preview", "collection",
)  # fmt: skip
_COLLECTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ORIGIN = re.compile(
    r"https?://(\*\.)?[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|https?://\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?"
)


@dataclass(frozen=True, slots=True)
class Policy:
    """What an asset says. ``kind`` None: nobody but whom the operator makes a session for. None elsewhere: as the settings say."""

    kind: Kind | None = None
    accounts: frozenset[str] | None = None
    """Of ``allow``: these; None: all that there are."""
    password: PasswordHash | None = field(default=None, repr=False)
    session: int | None = None
    """s that a session lasts at most."""
    max_streams: int | None = None
    when_full: WhenFull | None = None
    max_networks: int | None = None
    binding: Binding = "none"
    embed_origins: tuple[str, ...] = ()
    preview: float = 0.0
    """s from the beginning that need no grant."""
    collection: str = ""

    @property
    def gated(self) -> bool:
        """Whether this alone makes an asset gated."""
        return self.kind != "public"


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy says to somebody. ``reason`` is the code of a refusal, "" where a grant is given.

    ``entitlements`` are what satisfied it, by which streams are counted; none where everybody, or a mere word, gets in.
    """

    entitlements: tuple[str, ...] = ()
    reason: str = ""

    @property
    def granted(self) -> bool:
        """Whether it is satisfied."""
        return not self.reason


OPERATORS = Policy()
"""Of a gated asset without a table."""


def decide(policy: Policy, account: str | None, password: str | None) -> Decision:
    """What ``policy`` says to who is signed in as ``account`` (None: nobody) and gives ``password``.

    Blocking for some 0.2 s where a policy of ``password`` is given one, see :meth:`PasswordHash.fits`; else at once.
    Reasons: ``playback_denied``, ``sign_in_required``, ``password_wrong``, the last where none is given, too.
    """
    if policy.kind == "public":
        return Decision()
    if policy.kind == "allow":
        if account is None:
            return Decision(reason="sign_in_required")
        if policy.accounts is not None and account not in policy.accounts:
            return Decision(reason="playback_denied")
        return Decision((f"account:{account}",))
    if policy.kind == "password" and policy.password is not None:
        fits = bool(password) and policy.password.fits(password or "")
        return Decision() if fits else Decision(reason="password_wrong")
    return Decision(reason="playback_denied")


def parse(table: Mapping[str, Any]) -> Policy:
    """Read a table ``[policy]``; raises ``asset_description``, which quotes no hash."""
    if unknown := sorted(table.keys() - set(_NAMES)):
        raise _wrong(f"{unknown[0]!r} is not known; there are {', '.join(sorted(_NAMES))}")
    kind = _choice(table, "kind", get_args(Kind))
    if kind is None:
        raise _wrong(f"kind: one of {', '.join(get_args(Kind))}")
    for name, of in (("accounts", "allow"), ("password", "password")):
        if name in table and kind != of:
            raise _wrong(f"{name} is for kind = {of!r}")
    collection = table.get("collection", "")
    if not isinstance(collection, str) or (collection and not _COLLECTION.fullmatch(collection)):
        raise _wrong("collection: at most 64 letters, digits, dots, dashes and underscores, a letter or digit first")
    return Policy(
        kind=cast(Kind, kind),
        accounts=_accounts(table),
        password=_password(table) if kind == "password" else None,
        session=_number(table, "session", 1, MAX_SESSION_S),
        max_streams=_number(table, "max_streams", 0, 100_000),
        when_full=cast("WhenFull | None", _choice(table, "when_full", get_args(WhenFull))),
        max_networks=_number(table, "max_networks", 0, 64),
        binding=cast(Binding, _choice(table, "binding", get_args(Binding)) or "none"),
        embed_origins=_origins(table),
        preview=_seconds(table, "preview", 3600.0),
        collection=collection,
    )


def _wrong(detail: str) -> StreamGateError:
    return StreamGateError("asset_description", f"asset.toml: policy: {detail}"[:500])


def _choice(table: Mapping[str, Any], key: str, known: tuple[str, ...]) -> str | None:
    value = table.get(key)
    if value is not None and value not in known:
        raise _wrong(f"{key}: one of {', '.join(known)}")
    return cast("str | None", value)


def _accounts(table: Mapping[str, Any]) -> frozenset[str] | None:
    if "accounts" not in table:
        return None
    names = table["accounts"]
    if not isinstance(names, list) or len(names) > MAX_NAMES:
        raise _wrong(f"accounts: a list of at most {MAX_NAMES} names")
    if not all(isinstance(name, str) and is_name(name) for name in names):
        raise _wrong("accounts: names as they stand in the accounts' file")
    return frozenset(names)


def _password(table: Mapping[str, Any]) -> PasswordHash:
    value = table.get("password")
    try:
        return parse_hash(value if isinstance(value, str) else "")
    except ValueError as error:
        raise _wrong(f"password: {error}") from None


def _number(table: Mapping[str, Any], key: str, least: int, most: int) -> int | None:
    value = table.get(key)
    if value is not None and (type(value) is not int or not least <= value <= most):
        raise _wrong(f"{key}: a number from {least} to {most}")
    return value


def _seconds(table: Mapping[str, Any], key: str, most: float) -> float:
    value = table.get(key, 0.0)
    if type(value) not in (int, float) or not 0 <= value <= most:
        raise _wrong(f"{key}: seconds, {most:g} at most")
    return float(value)


def _origins(table: Mapping[str, Any]) -> tuple[str, ...]:
    value = table.get("embed_origins", [])
    if not isinstance(value, list) or len(value) > MAX_ORIGINS:
        raise _wrong(f"embed_origins: a list of at most {MAX_ORIGINS} origins")
    if not all(isinstance(origin, str) and _ORIGIN.fullmatch(origin) for origin in value):
        raise _wrong("embed_origins: origins such as https://example.com, without a path")
    return tuple(dict.fromkeys(value))
