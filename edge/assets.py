"""The assets that the edge knows, and those it keeps open."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from edge.origin.sharing import Origin
from edge.threads import Pool
from streamgate.core.logging import get_logger
from streamgate.core.settings import EdgeSettings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import Finding, StreamGateError
from streamgate.storage.assets import Asset, AssetRef
from streamgate.storage.discovery import with_previews

# A listing opens assets so that it can tell what they hold; it waits this long, and opens this many at a time.
_LISTING_WAIT_S = 1.0
_LISTING_OPENS = 32
_log = get_logger("edge.assets")


class Library(Protocol):
    """Where assets come from; both block."""

    def discover(self) -> list[AssetRef]:
        """All assets there are."""

    def open(self, ref: AssetRef) -> Asset:
        """Open one; raises StreamGateError."""


@dataclass(slots=True)
class Opened:
    """An open asset. ``generation`` differs between any two openings; files close when nobody holds the asset any more.

    ``checked`` is when its files were looked at last, ``confirmed`` when they were last seen to be the same. ``origin``
    reads what is in a store.
    """

    asset: Asset
    generation: int
    checked: float
    confirmed: float = 0.0
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """What a listing says of an asset."""

    state: str
    title: str
    duration: float | None = None
    findings: tuple[Finding, ...] = ()


class Assets:
    """Opens assets once for all who ask at the same time, looks at their files for changes, and forgets the least used."""

    def __init__(
        self,
        library: Library,
        pool: Pool,
        settings: EdgeSettings,
        telemetry: Telemetry,
        clock: Callable[[], float] = time.monotonic,
        *,
        origin: Origin | None = None,
        intervals: tuple[float, float, float] | None = None,
    ) -> None:
        self.origin = origin
        self._revalidate, self.list_interval, stale = intervals or (settings.revalidate, settings.revalidate, 0.0)
        self._stale = max(stale, settings.stale_while_revalidate)
        self._library = library
        self._pool = pool
        self._settings = settings
        self._telemetry = telemetry
        self._clock = clock
        self._refs: dict[str, AssetRef] = {}
        self.posters: dict[str, str] = {}
        """The assets that have one, by the paths of their posters, as they were listed last."""
        self._refs_read = float("-inf")
        self._refs_flight: asyncio.Task[dict[str, AssetRef]] | None = None
        self._open: OrderedDict[str, Opened] = OrderedDict()
        self._flights: dict[str, asyncio.Task[Opened]] = {}
        self._failures: dict[str, tuple[float, StreamGateError]] = {}
        self._summaries: dict[str, Summary] = {}
        self._generation = 0
        self._again: set[str] = set()
        self.on_listing: Callable[[Mapping[str, AssetRef]], None] = lambda _: None
        self.on_guarded: Callable[[str], None] = lambda _: None  # not all origins may play it any more
        telemetry.watch("assets_open", lambda: len(self._open))

    def current(self, asset_id: str) -> Opened | None:
        """The open asset, if its files were looked at recently enough, or are looked at now and are far away."""
        opened = self._open.get(asset_id)
        if opened is None:
            return None
        late = self._clock() - opened.checked - self._revalidate
        if late >= 0:
            if not opened.asset.remote or late >= self._stale:
                return None
            self._flight(asset_id)  # RFC 5861 section 3
        self._open.move_to_end(asset_id)
        return opened

    def fresh_for(self, opened: Opened) -> float:
        """Seconds until the asset's files are to be looked at again."""
        return opened.checked + self._revalidate - self._clock()

    def known(self, asset_id: str) -> Opened | None:
        """The open asset, however long ago its files were looked at; if it was too long, that is begun.

        Good enough for a rendition that it has: the rendition's name promises the bytes.
        """
        opened = self._open.get(asset_id)
        if opened is not None and self.fresh_for(opened) <= 0:
            self._flight(asset_id)
        return opened

    async def open(self, asset_id: str) -> Opened:
        """The asset, opened (again) if need be; whoever asks meanwhile waits for the same attempt.

        Raises ``asset_not_found`` or what the library raises; a failure is remembered for ``edge.failure_ttl``.
        """
        opened = self.current(asset_id)
        if opened is not None:
            return opened
        failure = self._failures.get(asset_id)
        if failure is not None and self._clock() < failure[0]:
            raise StreamGateError(failure[1].code, failure[1].detail)
        return await asyncio.shield(self._flight(asset_id))

    @property
    def listed(self) -> Mapping[str, AssetRef]:
        """All assets by id, as they were when they were listed last."""
        return self._refs

    def tags(self, asset_id: str) -> tuple[str, ...]:
        """The tags that its description gives an asset, as it was listed last."""
        ref = self._refs.get(asset_id)
        return ref.tags if ref is not None else ()

    def embeds(self, asset_id: str) -> tuple[str, ...]:
        """The origins whose pages may play the asset, as it was listed last; none: those of the settings."""
        ref = self._refs.get(asset_id)
        return ref.embed_origins if ref is not None else ()

    def forget(self, asset_id: str) -> None:
        """Open the asset anew when it is next asked for; an attempt that is under way begins again."""
        self._refs_read = float("-inf")
        self._open.pop(asset_id, None)
        self._failures.pop(asset_id, None)
        if asset_id in self._flights:
            self._again.add(asset_id)

    def doubt(self, asset_id: str) -> None:
        """Look at an open asset's files now; until that is done it counts as before."""
        if asset_id in self._open:
            self._flight(asset_id)

    async def refs(self) -> dict[str, AssetRef]:
        """All assets by id, read anew at most once per ``edge.revalidate``."""
        if self._clock() - self._refs_read < self.list_interval:
            return self._refs
        return await self.look()

    async def look(self) -> dict[str, AssetRef]:
        """All assets by id, read now; whoever else wants that waits for the same reading."""
        if self._refs_flight is None:
            self._refs_flight = _task(self._discover())
        return await asyncio.shield(self._refs_flight)

    async def listing(self) -> list[tuple[AssetRef, Summary]]:
        """All assets with what is known of them; those never opened are opened now, some at a time."""
        refs = {name: ref for name, ref in (await self.refs()).items() if not ref.preview_of}
        # Those never tried come first: many broken ones must not keep the others from being listed.
        urgency = {"ready": 0, "failed": 1, "preparing": 2}
        urgent = {name: urgency[s.state] if (s := self._summaries.get(name)) else 3 for name in refs}
        # What failed is tried again, but not in a store: a stranger who looks at the list must not keep it busy.
        least = 1 if self.origin is None else 2
        unknown = sorted((name for name in refs if urgent[name] >= least), key=lambda name: -urgent[name])
        if unknown:
            await asyncio.wait([_task(self.open(name)) for name in unknown[:_LISTING_OPENS]], timeout=_LISTING_WAIT_S)
        return [(ref, self._summaries.get(name) or Summary("preparing", ref.title)) for name, ref in refs.items()]

    def _flight(self, asset_id: str) -> asyncio.Task[Opened]:
        """The attempt that is under way, or a new one."""
        flight = self._flights.get(asset_id)
        if flight is None:
            flight = self._flights[asset_id] = _task(self._bring_anew(asset_id))
            flight.add_done_callback(lambda _: self._flights.pop(asset_id, None))
        return flight

    async def _discover(self) -> dict[str, AssetRef]:
        try:
            found = await self._pool.run(self._library.discover)
            before, self._refs = self._refs, {ref.id: ref for ref in with_previews(found)}
            self.posters = {f"/v/{ref.id}/{ref.poster}": ref.id for ref in self._refs.values() if ref.poster}
            for name, ref in self._refs.items():
                if ref.embed_origins and not (name in before and before[name].embed_origins):
                    self.on_guarded(name)
            self._refs_read = self._clock()
            self.on_listing(self._refs)
            for table in (self._summaries, self._failures):
                for gone in table.keys() - self._refs.keys():
                    del table[gone]
            return self._refs
        finally:
            self._refs_flight = None

    async def _bring_anew(self, asset_id: str) -> Opened:
        while True:
            self._again.discard(asset_id)
            opened = await self._bring(asset_id)
            if asset_id not in self._again:
                return opened
            self._open.pop(asset_id, None)

    async def _bring(self, asset_id: str) -> Opened:
        """Look at an open asset's files for changes, and open the asset where that is needed."""
        opened = self._open.get(asset_id)
        if opened is not None:
            if not await self._changed(opened):
                opened.checked = self._clock()
                return opened
            self._open.pop(asset_id, None)
            self._refs_read = float("-inf")
        ref = (await self.refs()).get(asset_id)
        if ref is None:
            raise StreamGateError("asset_not_found")
        started = self._clock()
        try:
            asset = await self._pool.run(self._library.open, ref)
        except StreamGateError as error:
            self._failed(ref, error)
            raise
        self._telemetry.observe("asset_open_seconds", self._clock() - started)
        self._telemetry.count("asset_opens", result="ok")
        self._generation += 1
        now = self._clock()
        opened = Opened(asset, self._generation, now, now, self.origin if asset.remote else None)
        self._open[asset_id] = opened
        self._failures.pop(asset_id, None)
        duration = float(asset.presentation.duration)
        self._summaries[asset_id] = Summary("ready", asset.title, duration, tuple(asset.findings))
        while len(self._open) > self._settings.open_assets:
            self._open.popitem(last=False)
        return opened

    async def _changed(self, opened: Opened) -> bool:
        """Whether its files are others now. Where a store cannot be asked, what is open counts on, for ``edge.stale_if_error``."""
        if not opened.asset.remote:
            return await self._pool.run(opened.asset.changed)
        try:
            changed = await opened.asset.replaced()
        except StreamGateError as error:
            if self._clock() - opened.confirmed > self._settings.stale_if_error:
                raise
            self._telemetry.count("asset_checks_failed")
            _log.warning("an asset's objects cannot be looked at", asset=opened.asset.id, code=error.code)
            return False
        opened.confirmed = self._clock()
        return changed

    def _failed(self, ref: AssetRef, error: StreamGateError) -> None:
        self._telemetry.count("asset_opens", result=error.code)
        if error.code == "overloaded":
            return
        state = "preparing" if error.code == "asset_preparing" else "failed"
        findings = (*ref.findings, Finding(error.code, ref.id, error.detail))
        self._summaries[ref.id] = Summary(state, ref.title, findings=findings if state == "failed" else ref.findings)
        self._failures[ref.id] = (self._clock() + self._settings.failure_ttl, error)


def _task(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A task whose failure is known to those who wait for it, and to nobody else."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task
