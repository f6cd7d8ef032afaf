"""The leases of a process: asked for where a request finds none, extended in batches, ended as soon as something is revoked.

The auth role (its Unix socket at ``path``) grants them; what it does not extend ends by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import aiohttp

from edge.revocations import Revocations
from streamgate.access.tokens import SESSION
from streamgate.core.clock import steady
from streamgate.core.logging import get_logger
from streamgate.core.settings import Settings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import CODES, StreamGateError
from streamgate.native.cat import Token, Verifier
from streamgate.native.leases import Lease, Leases, network
from streamgate.storage.kv.events import Event, EventType

_log = get_logger("edge.leases")
_BATCH = 1000  # pairs of a call
_PART = 3  # calls in the life of a lease
_LOOK_S = 0.25  # between two looks at answers that are under way
_PAUSE_S = 0.02  # before a call that failed at once is made again
_BRIEF_S = 1.0  # in which a call is made again, and nothing is told late
_SPREAD_S = 2.0  # in which nodes tell a store that they share, and each other, what happened while it was away
_MOST_BYTES = 4 * 2**20
_URL = "http://auth/leases"

Pair = tuple[bytes, bytes]
"""A session and a network."""
Name = tuple[EventType, bytes]


class Leasing:
    """Holds what is granted in ``table``. Without a ``path`` nobody grants anything.

    ``stale`` tells whether the feed of revocations is too old: then leases are asked for one by one. ``verifier`` is the one that
    has read all tokens. ``now`` gives ns of CLOCK_MONOTONIC.
    """

    def __init__(
        self,
        settings: Settings,
        path: str,
        revocations: Revocations,
        telemetry: Telemetry,
        stale: Callable[[], bool],
        verifier: Verifier,
        now: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._settings = settings.leases
        self.table = Leases(self._settings.most, required=not settings.tokens.without_session)
        self.away = False
        """Whether the parent says that there is no auth role at present."""
        self._path = path if self.table.required else ""
        self._revocations = revocations
        self._telemetry = telemetry
        self._stale = stale
        self._verifier = verifier
        self._kids: frozenset[bytes] | None = None
        self._caps: dict[Pair, float] = {}
        self._now = now
        self._asked: dict[Pair, asyncio.Future[StreamGateError | None]] = {}
        self._waiting: list[tuple[Pair, str, str]] = []
        self._wanted = asyncio.Event()
        self._reached: float | None = None
        self._failing: float | None = None
        # Where the store is a site's, some of what was revoked elsewhere while it failed is known here later than it answers.
        self._settling = settings.redis.circuit_probe_max + _SPREAD_S if settings.redis.url else 0.0
        self._believed = 0.0
        self._node = platform.node()
        self._session: aiohttp.ClientSession | None = None
        self._numbers = itertools.count()
        self._tasks: list[asyncio.Task[None]] = []
        self._under_way: dict[int, tuple[Lease, Token, Callable[[], None]]] = {}
        telemetry.watch("leases_held", lambda: len(self.table))

    async def start(self) -> None:
        """Begin to ask, where there is whom to ask."""
        self._tasks.append(asyncio.create_task(self._keep_looking()))
        if self._path:
            # Its process may be another one the next time.
            self._session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(self._path, force_close=True))
            self._tasks += [asyncio.create_task(work) for work in (self._keep_asking(), self._keep_extending())]

    async def stop(self) -> None:
        """Ask no more; what is held ends by itself."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._session is not None:
            await self._session.close()

    async def hold(self, token: Token, asset: str, address: bytes, carriage: str) -> Lease:
        """The lease by which a request for ``asset`` from a packed address may be served, as soon as there is one.

        Raises ``session_…`` or another code of the auth role where it may not, and ``lease_unavailable`` where that cannot
        be found out in time.
        """
        if (held := self.table.hold(token, asset, address, self._now())) is not None:
            return held
        if self._session is None:
            raise StreamGateError("lease_unavailable")
        pair = token.session, network(address)
        if len(token.session) != SESSION:
            raise StreamGateError("session_unknown")
        answer = self._asked.get(pair)
        if answer is None:
            if len(self._asked) >= self.table.most:
                raise StreamGateError("overloaded", "too many sessions wait for a lease")
            answer = self._asked[pair] = asyncio.get_running_loop().create_future()
            self._waiting.append((pair, asset, carriage))
            self._wanted.set()
        try:
            async with asyncio.timeout(self._settings.wait):
                refused = await asyncio.shield(answer)
        except TimeoutError:
            raise StreamGateError("lease_unavailable") from None
        if refused is not None:
            raise StreamGateError(refused.code, refused.detail)
        if (held := self.table.hold(token, asset, address, self._now())) is None:
            # Another asset was asked for with the same session, or it has ended within these moments.
            lease = self.table.get(*pair)
            raise StreamGateError("session_asset" if lease is not None and lease.asset != asset else "session_ended")
        return held

    def cap(self, lease: Lease) -> float:
        """When a lease's session ends at the latest, in s since 1970; 0 where it has none."""
        return self._caps.get((lease.session, lease.network), 0.0)

    @contextlib.contextmanager
    def followed(self) -> Iterator[Callable[[Lease, Token, Callable[[], None]], None]]:
        """While an answer is under way: it is cut as soon as the lease that it is told of has ended, or what that hangs on."""
        number = next(self._numbers)

        def follow(lease: Lease, token: Token, cut: Callable[[], None]) -> None:
            self._under_way[number] = lease, token, cut

        try:
            yield follow
        finally:
            self._under_way.pop(number, None)

    def apply(self, events: Iterable[Event]) -> None:
        """End what events revoke that :class:`Revocations` has taken into force."""
        names: set[Name] = {(event.type, event.subject) for event in events if event.type != "purge"}
        if names:
            self.table.end_named(names)

    def keys_changed(self, kids: frozenset[bytes]) -> None:
        """The keys with these ids count now, and no other."""
        self._kids = kids

    def problem(self) -> str | None:
        """A sentence for people where leases cannot be had."""
        if not self._path or not (self.away or self._failing is not None):
            return None
        since = "" if self._failing is None else f" for {steady() - self._failing:.0f} s"
        return f"the auth role does not answer{since}: nobody new gets in, and sessions end with their leases"

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            now = self._now()
            for lease, token, cut in list(self._under_way.values()):
                lease.used = True
                if lease.until <= now or not self._stands(lease, token):
                    try:
                        cut()
                    except Exception:
                        _log.exception("an answer could not be cut")

    def _stands(self, lease: Lease, token: Token) -> bool:
        """Whether a token that was good still is. One with a lease of its own may have expired: the lease has an end."""
        revoked = self._revocations.revoked
        if self._kids is not None and token.kid not in self._kids:
            return False
        if revoked("revoke.session", token.session) or revoked("revoke.key", token.kid):
            return False
        if lease is not self.table.free:
            return True
        if token.deadline <= time.time() or (token.digest is not None and revoked("revoke.token", token.digest)):
            return False
        try:
            # It may have been revoked as it is written elsewhere; what else it says here is of no request.
            self._verifier.check(token, path="/", now=int(time.time()))
        except StreamGateError as error:
            return error.code != "token_revoked"
        return True

    async def _keep_asking(self) -> None:
        while True:
            await self._wanted.wait()
            size = 1 if self._stale() else _BATCH
            batch, self._waiting = self._waiting[:size], self._waiting[size:]
            if not self._waiting:
                self._wanted.clear()
            found: dict[Pair, StreamGateError | None] = {}
            try:
                rows = [[pair[0].hex(), "", asset, _text(pair[1]), carriage] for pair, asset, carriage in batch]
                found = await self._call([pair for pair, _, _ in batch], ask=rows)
            except StreamGateError as error:
                found = {pair: error for pair, _, _ in batch}
            except Exception:
                _log.exception("leases could not be asked for")
            finally:
                for pair, _, _ in batch:
                    answer = self._asked.pop(pair)
                    if not answer.done():
                        answer.set_result(found.get(pair, StreamGateError("lease_unavailable")))

    async def _keep_extending(self) -> None:
        interval = self._settings.duration / _PART
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(interval)
            end = loop.time() + interval
            used, size = self.table.used(self._now()), 1 if self._stale() else _BATCH
            for at in range(0, len(used), size):
                batch = used[at : at + size]
                if loop.time() >= end:
                    for lease in batch:
                        lease.used = True  # there will be time for it the next time, if it still counts
                else:
                    try:
                        await self._extend(batch)
                    except Exception:
                        _log.exception("leases could not be extended")

    async def _extend(self, leases: list[Lease]) -> None:
        pairs = [(lease.session, lease.network) for lease in leases]
        try:
            found = await self._call(pairs, extend=[[session.hex(), _text(place)] for session, place in pairs])
        except StreamGateError:
            for lease in leases:
                lease.used = True
                if lease.until and self._reached is not None and self._settings.auth_outage:
                    self._bridge(lease, self._reached + self._settings.duration + self._settings.auth_outage)
            return
        for lease, pair in zip(leases, pairs, strict=True):
            if found.get(pair) is not None and self.table.get(*pair) is lease:
                self.table.end(lease)

    def _bridge(self, lease: Lease, end: float) -> None:
        """Let a lease count on though nobody extends it, as the operator wishes, until ``end`` (steady seconds)."""
        cap = self._caps.get((lease.session, lease.network), 0.0)
        left = min(self._settings.duration, end - steady(), cap - time.time())
        if left > 0:
            lease.until = max(lease.until, self._now() + int(left * 1e9))

    async def _call(
        self, pairs: list[Pair], *, ask: list[list[str]] | None = None, extend: list[list[str]] | None = None
    ) -> dict[Pair, StreamGateError | None]:
        """Hold what is granted; for each pair why it is not, or None. Raises ``lease_unavailable``."""
        body = {"node": self._node, "ask": ask or [], "extend": extend or [], "fresh": self._stale()}
        # Not from when the answer is here: it may have been long on its way.
        began = self._now()
        try:
            async with asyncio.timeout(self._settings.wait):
                told = await self._post(json.dumps(body).encode())
            found = {pair: self._take(pair, told, began) for pair in pairs}
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if self._failing is None:
                self._failing = steady()
                reason = str(error) if type(error) is ValueError else type(error).__name__
                _log.error("the auth role grants no leases", reason=reason)
            self._telemetry.count("leases", len(pairs), result="unavailable")
            raise StreamGateError("lease_unavailable") from None
        if self._failing is not None:
            _log.info("the auth role grants leases again", after=round(steady() - self._failing, 1))
        self._failing, self._reached = None, steady()
        for refused in found.values():
            self._telemetry.count("leases", result="granted" if refused is None else "refused")
        return found

    async def _post(self, body: bytes) -> Any:
        """What the auth role says. As long as it is being replaced it is asked again; the caller sets a limit."""
        assert self._session is not None
        while True:
            with contextlib.suppress(aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                headers = {"Content-Type": "application/json"}
                async with self._session.post(_URL, data=body, headers=headers) as answer:
                    text = await answer.content.read(_MOST_BYTES)
                    while not answer.content.at_eof() and len(text) < _MOST_BYTES:
                        text += await answer.content.read(_MOST_BYTES)
                    if answer.status != 200:
                        if self._failing is not None and steady() - self._failing >= _BRIEF_S:
                            self._believed = steady() + self._settling
                        raise ValueError(f"status {answer.status}")
                    if steady() < self._believed:
                        raise ValueError("the store of the site failed of late")
                    return json.loads(text)
            await asyncio.sleep(_PAUSE_S)

    def _take(self, pair: Pair, told: dict[str, Any], began: int) -> StreamGateError | None:
        """Hold the lease that an answer grants to a pair; else why there is none."""
        name = f"{pair[0].hex()}|{_text(pair[1])}"
        row = told["granted"].get(name)
        if row is None:
            code = told["refused"].get(name)
            return StreamGateError(code if code in CODES else "lease_unavailable")
        asset = row["asset"]
        names: tuple[Name, ...] = (
            ("revoke.session", pair[0]),
            ("revoke.grant", bytes.fromhex(row["grant"])),
            ("revoke.account", row["account"].encode()),
            ("revoke.asset", asset.encode()),
            *(("revoke.entitlement", each.encode()) for each in row["entitlements"]),
        )
        # What was revoked while the answer was on its way.
        if any(self._revocations.revoked(*each) for each in names if each[1]):
            return StreamGateError("session_ended")
        cap = float(row["cap"])
        left = min(float(row["seconds"]), cap - time.time())
        if not left > 0:
            return StreamGateError("session_ended")
        self.table.grant(*pair, began + int(left * 1e9), asset=asset, names=tuple(each for each in names if each[1]))
        self._caps[pair] = cap
        if len(self._caps) > 2 * self.table.most:
            self._caps = {each: cap for each, cap in self._caps.items() if self.table.get(*each) is not None}
        return None


def _text(place: bytes) -> str:
    """A network as people write it: 203.0.113.0/24, 2001:db8:1::/48; "" where it is not known."""
    if not place:
        return ""
    size = 4 if len(place) == 3 else 16
    return str(ipaddress.ip_network((place.ljust(size, b"\0"), 8 * len(place))))
