"""What the edge serves beside media: the pages, the list of assets, health, version and metrics."""

from __future__ import annotations

import json
import platform
import ssl
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from pkgutil import iter_modules

from aiohttp import web

from edge import entries, media, pages
from edge.assets import Summary
from edge.context import Context
from edge.entries import Entry
from edge.node import Node
from streamgate.errors import StreamGateError
from streamgate.storage.assets import AssetRef
from streamgate.storage.discovery import preview_id

_JSON = "application/json"


class Operations:
    """Fixed paths, each with the class of route that metrics know it by."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._pages: dict[str, Entry] = {}
        self._about: dict[str, object] = {}
        self._made: dict[str, tuple[str, Callable[[Context], Awaitable[Entry]]]] = {
            "/assets.json": ("assets", self._assets),
            "/health/live": ("health", self._live),
            "/health/ready": ("health", self._ready),
            "/metrics": ("metrics", self._metrics),
            "/version": ("version", self._version),
        }

    async def load(self, _: web.Application) -> None:
        """Read the built pages and the versions of everything into memory."""
        self._pages = await self._node.pool.run(pages.load)
        self._about = await self._node.pool.run(_about)

    async def find(self, ctx: Context) -> tuple[str, Entry]:
        """The route's class and the entry at ``ctx.path``; raises ``not_found``, or what the entry's maker raises."""
        page = self._pages.get(ctx.path)
        if page is not None:
            origins = self._node.assets.embeds(ctx.request.query.get("asset", ""))
            found = pages.embedded(page, origins)
            if found is not page:
                # Its compressed forms are others, too: no path has such a name.
                ctx.key = f"{ctx.path}?{' '.join(origins)}"
            return "page", found
        asset = self._node.assets.posters.get(ctx.path)
        if asset is not None:
            ctx.route = "poster"
            return "poster", await self._poster(ctx.path, asset)
        made = self._made.get(ctx.path)
        if made is None:
            raise StreamGateError("not_found")
        ctx.route = made[0]
        return ctx.route, await made[1](ctx)

    async def _poster(self, path: str, asset: str) -> Entry:
        """Read once for each opening of the asset, and kept as pages are."""
        opened, kept = await self._node.assets.open(asset), self._node.tiers.pages
        known = kept.get(path.encode())
        if known is not None and known.generation == opened.generation:
            return known
        read = (pages.poster, opened, media.freshness(self._node.settings.edge))
        entry: Entry = await self._node.flights.join(f"{path}#{opened.generation}", *read)
        kept.put(path.encode(), entry, entry.size)
        return entry

    async def _assets(self, _: Context) -> Entry:
        # A stranger hears of open assets only, unless the operator wants it otherwise.
        every, is_open = self._node.settings.edge.list_gated, self._node.gate.open
        known = [(ref, summary, ref.id.encode() not in is_open) for ref, summary in await self._node.assets.listing()]
        listed = [_asset(ref, summary, gated) for ref, summary, gated in known if every or not gated]
        return _json({"assets": listed}, "no-cache")

    async def _live(self, _: Context) -> Entry:
        return _json({"status": "live"})

    async def _ready(self, _: Context) -> Entry:
        problems = self._node.health.problems()
        if problems:
            code = "stopping" if self._node.health.state in ("draining", "stopping") else "not_ready"
            raise StreamGateError(code, "; ".join(f"{name}: {problem}" for name, problem in problems.items()))
        degraded = "; ".join(self._node.health.notes())
        return _json({"status": "ready", "detail": f"degraded: {degraded}"} if degraded else {"status": "ready"})

    async def _metrics(self, ctx: Context) -> Entry:
        # In a thread: it takes milliseconds, and reads /proc.
        accept = ctx.request.headers.get("Accept", "")
        body, media_type = await self._node.pool.run(self._node.telemetry.exposition, accept)
        return entries.text(body, media_type, "no-store")

    async def _version(self, _: Context) -> Entry:
        return _json(self._about)


def _about() -> dict[str, object]:
    """What this process is made of; blocking, for it reads the packages' metadata."""
    from streamgate import native
    from streamgate.native import cat, cmaf

    def of(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    return {
        "streamgate": of("streamgate"),
        "kernels": sorted(module.name for module in iter_modules(native.__path__)),
        "segment_format": cmaf.FORMAT_VERSION,
        "python": platform.python_version(),
        "openssl": cat.OPENSSL,
        "openssl_tls": ssl.OPENSSL_VERSION,
        "aiohttp": of("aiohttp"),
        "uvloop": of("uvloop"),
    }


def _asset(ref: AssetRef, summary: Summary, gated: bool) -> dict[str, object]:
    return {
        "id": ref.id,
        "title": summary.title,
        "state": summary.state,
        "gated": gated,
        "duration": summary.duration,
        "urls": _urls(ref.id),
        "poster": f"v/{ref.id}/{ref.poster}" if ref.poster else None,
        "preview": _urls(preview_id(ref.id)) if ref.preview else None,
        "findings": [{"code": f.code, "subject": f.subject, "detail": f.detail} for f in summary.findings],
    }


def _urls(asset: str) -> dict[str, str]:
    base = f"v/{asset}"
    return {"hls": f"{base}/main.m3u8", "hls_ts": f"{base}/main-ts.m3u8", "dash": f"{base}/main.mpd"}


def _json(content: object, cache_control: str = "no-store") -> Entry:
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return entries.text(body, _JSON, cache_control)
