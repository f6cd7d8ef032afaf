"""The auth role put together: what its HTTP calls go to."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from streamgate.control.auth.activity import Activity, NodeActivity
from streamgate.control.auth.catalogue import Catalogue
from streamgate.control.auth.endings import Endings
from streamgate.control.auth.grants import Grants
from streamgate.control.auth.hashing import Hashing
from streamgate.control.auth.keys import SiteKeys
from streamgate.control.auth.leases import Leases
from streamgate.control.auth.ledger import Ledger
from streamgate.control.auth.places import Places
from streamgate.control.auth.rates import Rates
from streamgate.control.auth.revoked import Revoked
from streamgate.control.auth.signing_in import SigningIn
from streamgate.control.auth.site_activity import SiteActivity
from streamgate.core.logging import get_logger
from streamgate.core.settings import Settings
from streamgate.core.telemetry import Telemetry
from streamgate.storage.keys import ROOT_OF_ITS_OWN, root_of_its_own
from streamgate.storage.kv.events import Event, EventType
from streamgate.storage.kv.rows import Grouped, RowStore
from streamgate.storage.kv.sqlite import SqliteStore

_log = get_logger("streamgate.auth")


@dataclass(frozen=True)
class Service:
    """Everything that a request may need. ``clock`` gives s since 1970."""

    settings: Settings
    telemetry: Telemetry
    revoked: Revoked
    endings: Endings
    keys: SiteKeys
    ledger: Ledger
    leases: Leases
    grants: Grants
    signing_in: SigningIn
    clock: Callable[[], float] = field(default=time.time)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        settings: Settings,
        root: str,
        store: Path,
        news: Callable[[], None] = lambda: None,
        telemetry: Telemetry | None = None,
    ) -> AsyncIterator[Service]:
        """The service over the machine's store, and the site's where there is one; what was revoked before is in force.

        ``news`` is called when there is something new in the machine's feed. Raises ``config_invalid``, ``store_unavailable``.
        """
        telemetry = telemetry or Telemetry()
        if root_of_its_own(settings):
            _log.warning(ROOT_OF_ITS_OWN)
        async with AsyncExitStack() as stack:
            machine = await SqliteStore.open(store)
            stack.push_async_callback(machine.close)
            rows = await _rows(settings, machine, stack)
            revoked, shared = Revoked(time.time), bool(settings.redis.url)
            activity: Activity = SiteActivity(rows, settings.auth) if shared else NodeActivity(settings.auth)
            keys = await SiteKeys.open(settings)
            stack.push_async_callback(keys.close)
            catalogue = await Catalogue.open(settings, root)
            stack.push_async_callback(catalogue.close)
            hashing = Hashing(settings.auth.hashing, settings.auth.hashing_queue)
            stack.callback(hashing.close)
            rates = Rates(settings.auth)
            ledger = Ledger(
                rows,
                _Feed(machine, news),
                revoked,
                shared=shared,
                limit=settings.auth.remembered,
                told=None
                if settings.tokens.without_session
                else settings.leases.duration + settings.leases.auth_outage,
            )
            signing_in = SigningIn(settings, keys, rows, rates, hashing)
            await signing_in.start()
            stack.push_async_callback(signing_in.close)
            endings = await Endings.open(rows, ledger, revoked)
            stack.push_async_callback(endings.close)
            await _catch_up(machine, revoked, keys, endings)
            places = await Places.open(settings.geoip)
            stack.push_async_callback(places.close)
            leases = Leases(ledger, revoked, activity, places, settings.leases.duration)
            stack.push_async_callback(leases.close)
            telemetry.watch("auth_sessions", lambda: len(ledger))
            telemetry.watch("auth_revocations", lambda: len(revoked))
            yield cls(
                settings=settings,
                telemetry=telemetry,
                revoked=revoked,
                endings=endings,
                keys=keys,
                ledger=ledger,
                leases=leases,
                grants=Grants(settings, keys, catalogue, ledger, revoked, activity, places, rates, hashing),
                signing_in=signing_in,
            )

    def apply(self, event: Event) -> None:
        """Take an event of the feed into force."""
        # Where it is in force already we have said it ourselves, when it was written down.
        self.endings.note(event, new=self.revoked.apply(event))
        self.keys.apply(event)

    def forget(self) -> None:
        """Drop what has ended."""
        self.endings.look_again()
        self.revoked.forget()
        self.keys.verifier.forget(int(self.clock()))


SERVICE = web.AppKey("service", Service)


class _Feed:
    """The machine's feed, whose reader is told when there is something new."""

    def __init__(self, store: SqliteStore, news: Callable[[], None]) -> None:
        self._store = store
        self._news = news

    async def append(self, type: EventType, subject: bytes, until: int | None) -> int:
        number = await self._store.append(type, subject, until)
        self._news()
        return number


async def _rows(settings: Settings, machine: SqliteStore, stack: AsyncExitStack) -> RowStore:
    """Where rows are kept: in the machine's store, or in the one that the nodes of a site share."""
    if not settings.redis.url:
        return Grouped(machine)
    from streamgate.storage.kv.redis import RedisStore  # only where the settings name one

    shared = await RedisStore.open(settings.redis)
    stack.push_async_callback(shared.close)
    return shared


async def _catch_up(store: SqliteStore, revoked: Revoked, keys: SiteKeys, endings: Endings) -> None:
    events, position = await store.events()
    while events:
        for event in events:
            endings.note(event, new=revoked.apply(event))
            keys.apply(event)
        events, position = await store.events(position)
