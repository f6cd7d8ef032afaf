"""Signing in with an account of the file: access tokens, and families of refresh tokens."""

from __future__ import annotations

import asyncio
import importlib.util
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from streamgate.access import access_tokens, accounts, refresh
from streamgate.access.accounts import Accounts
from streamgate.control.auth.hashing import Hashing
from streamgate.control.auth.keys import SiteKeys
from streamgate.control.auth.rates import Rates
from streamgate.core.logging import get_logger
from streamgate.core.settings import Settings
from streamgate.errors import StreamGateError
from streamgate.storage.kv.rows import RowStore, Write

_log = get_logger("streamgate.auth")
_LOOK_S = 1.0
_TRIES = 5
_MAX_BYTES = 16 * 2**20
_ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class SignedIn:
    """What one gets: an access token that counts for ``life`` s, and a refresh token until ``expires`` (s since 1970)."""

    account: str
    access: str
    life: int
    refresh: str
    expires: int


class SigningIn:
    """The file of accounts, looked at again and again, and what is stored of who signed in."""

    def __init__(
        self,
        settings: Settings,
        keys: SiteKeys,
        rows: RowStore,
        rates: Rates,
        hashing: Hashing,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._rows = rows
        self._rates = rates
        self._hashing = hashing
        self._clock = clock
        self._accounts = Accounts({})
        self._seen: object = None
        self._looking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the accounts. Raises ``config_invalid``."""
        if self._settings.auth.accounts:
            if importlib.util.find_spec("nacl") is None:
                raise StreamGateError("config_invalid", "auth.accounts: pip install 'streamgate[control]' first")
            await self._read(Path(self._settings.auth.accounts))
            self._looking = asyncio.create_task(self._look(Path(self._settings.auth.accounts)))

    async def close(self) -> None:
        """Look at the accounts no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    def account(self, access: str) -> str:
        """Whose access token this is; raises ``sign_in_required``."""
        if not self._accounts:
            raise StreamGateError("sign_in_required", "there are no accounts")
        told = access_tokens.verify(access, self._keys.readers(), **self._parties(), now=int(self._clock()))
        if told.account not in self._accounts:
            raise StreamGateError("sign_in_required", "there is no such account any more")
        return told.account

    async def login(self, name: str, password: str, source: str) -> SignedIn:
        """Sign in, from an address that counts as ``source``; raises ``rate_limited``, ``sign_in_failed`` and ``overloaded``."""
        self._rates.logins.ask(source)
        known = self._accounts
        if not await self._hashing.run(lambda: known.check(name, password)):
            raise StreamGateError("sign_in_failed")
        now, id = int(self._clock()), secrets.token_bytes(refresh.ID)
        family, token = refresh.begin(
            name,
            id=id,
            secret=self._secret(id),
            now=now,
            life=self._settings.auth.refresh_life,
        )
        await self._rows.write([Write(_key(family.id), family.encode(), family.expires - now, None)])
        return self._signed_in(family, token, now)

    async def renew(self, token: str) -> SignedIn:
        """Use a refresh token; raises ``refresh_invalid``, and then the whole family may have ended."""
        id, secret = refresh.parse(token, self._keys.subjects)
        for _ in range(_TRIES):
            row, family = await self._family(id)
            now = self._clock()
            made = refresh.rotate(family, secret, fresh=self._secret(id), now=now)
            if made.family != family and not await self._store(made.family, row, now):
                continue  # somebody was faster; what holds now is seen the next time
            if made.outcome == "reused":
                _log.warning("a refresh token came back that had been used; its family has ended")
            if made.outcome in ("reused", "ended") or family.account not in self._accounts:
                raise StreamGateError("refresh_invalid")
            return self._signed_in(made.family, made.token, int(now))
        raise StreamGateError("store_unavailable", "a row was changed again and again")

    async def logout(self, token: str) -> None:
        """End the family of a refresh token; one that counts no more is fine. Raises ``refresh_invalid`` for what is none."""
        id, secret = refresh.parse(token, self._keys.subjects)
        for _ in range(_TRIES):
            try:
                row, family = await self._family(id)
            except StreamGateError as error:
                if error.code == "refresh_invalid":
                    return
                raise
            now = self._clock()
            # A used one ends it, too.
            if refresh.rotate(family, secret, fresh=secret, now=now).outcome == "ended":
                return
            if await self._store(refresh.end(family), row, now):
                return
        raise StreamGateError("store_unavailable", "a row was changed again and again")

    def _secret(self, id: bytes) -> bytes:
        return refresh.secret(self._keys.subjects, id, secrets.token_bytes(refresh.RANDOM))

    async def _family(self, id: bytes) -> tuple[bytes, refresh.Family]:
        (row,) = await self._rows.get_many([_key(id)])
        if row is None:
            raise StreamGateError("refresh_invalid")
        try:
            return row, refresh.Family.decode(row)
        except ValueError:
            raise StreamGateError("refresh_invalid") from None

    async def _store(self, family: refresh.Family, before: bytes, now: float) -> bool:
        write = Write(_key(family.id), family.encode(), max(1.0, family.expires - now), before)
        return (await self._rows.write([write]))[0]

    def _signed_in(self, family: refresh.Family, token: str, now: int) -> SignedIn:
        life = self._settings.auth.access_life
        access = access_tokens.issue(
            self._keys.access,
            **self._parties(),
            account=family.account,
            family=family.id.hex(),
            id=secrets.token_hex(_ID_BYTES),
            now=now,
            life=life,
        )
        return SignedIn(family.account, access, life, token, family.expires)

    def _parties(self) -> dict[str, str]:
        return {"issuer": self._settings.tokens.issuer, "audience": self._settings.tokens.site}

    async def _look(self, path: Path) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await self._read(path)
            except StreamGateError as error:
                _log.error("the accounts stay as they were", code=error.code, detail=error.detail)

    async def _read(self, path: Path) -> None:
        """Read the file where it has changed; what is wrong with it is told once."""
        seen, data = await asyncio.to_thread(_changed, path, self._seen)
        if seen != self._seen:
            self._seen = seen
            if data is None:
                raise StreamGateError("config_invalid", f"auth.accounts: {path} cannot be read, or others may read it")
            self._accounts = await asyncio.to_thread(accounts.parse, data, str(path))


def _changed(path: Path, seen: object) -> tuple[object, bytes | None]:
    """What tells the file's version, and what is in it where that is not ``seen``."""
    try:
        with path.open("rb") as file:
            told = path.stat()
            now = told.st_ino, told.st_size, told.st_mtime_ns, told.st_mode
            return now, file.read(_MAX_BYTES) if now != seen and not told.st_mode & 0o077 else None
    except OSError as error:
        return error.errno, None


def _key(id: bytes) -> str:
    return f"refresh/{id.hex()}"
