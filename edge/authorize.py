"""Who may see what: which assets are open, where a request carries its token, and what the token says of the request.

Which assets are open is a table that each listing of the assets renews. Whatever is not in it is gated, whether there is
such an asset or not: without a token the answer is the same, and nothing was looked up for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy, MultiMapping

from edge.assets import Assets
from edge.foreign import Foreign
from edge.proxies import Proxies
from edge.renewal import COOKIES
from streamgate.access.tokens import NAME as NAME
from streamgate.core.logging import get_logger
from streamgate.core.settings import EdgeSettings
from streamgate.errors import StreamGateError
from streamgate.native.cat import Token, Verifier
from streamgate.storage.assets import AssetRef

# A listing that takes long is made less often: at most this part of the time goes into it.
_SHARE = 0.02
_REMOTE_SHARE = 0.5  # of a store: it is waited for, and that costs little
_OFTEN_S = 0.1
_NO_HEADERS: MultiMapping[str] = CIMultiDictProxy(CIMultiDict())
_log = get_logger("edge.authorize")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says of itself: ``path`` canonical and behind any token, ``address`` packed, b"" where not known.

    ``carrier`` is where its token was, as :func:`credential` has it.
    """

    method: str
    scheme: str
    host: str
    path: str
    address: bytes
    now: int
    headers: MultiMapping[str] = field(default_factory=lambda: _NO_HEADERS)
    carrier: str = ""


SlowCheck = Callable[[Token, Asked], Awaitable[None]]
"""Decides on a token in which nothing says no, but something is not evaluated by the kernel; raises where it refuses."""


Told = Callable[[Token, Asked, StreamGateError], StreamGateError]
"""What is raised in the place of the kernel's refusal of a token."""


async def refuse(token: Token, asked: Asked) -> None:
    """The slow check until there is one: what is not evaluated is refused."""
    raise StreamGateError("token_unsupported")


class Gate:
    """Decides on requests for media. ``open`` holds the ids of all assets that need no token; it is changed in place."""

    def __init__(
        self,
        assets: Assets,
        settings: EdgeSettings,
        verifier: Verifier,
        proxies: Proxies | None = None,
        slow: SlowCheck = refuse,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.open: set[bytes] = set()
        self.verifier = verifier
        self.slow = slow
        self.told: Told = lambda token, asked, error: error
        self.foreign: Foreign | None = None  # who looks at signatures, if anybody
        self._proxies = proxies or Proxies(())
        self._assets = assets
        self._settings = settings
        self._clock = clock
        self._busy = 0
        self._listed = False
        self._away = ""  # why a store has never been listed
        self._timer: asyncio.TimerHandle | None = None
        self._look: asyncio.Task[None] | None = None
        assets.on_listing = self._renew

    async def start(self) -> None:
        """Read the table for the first time, if it was not, and from then on again and again."""
        if self._look is None and self._timer is None:
            self._look = asyncio.ensure_future(self._refresh())
        if not self._listed and self._look is not None:
            await asyncio.shield(self._look)

    def stop(self) -> None:
        """Leave the table as it is."""
        if self._timer is not None:
            self._timer.cancel()
        if self._look is not None:
            self._look.cancel()

    async def admits(self, asset: str, token: str | None, asked: Asked) -> Token | None:
        """The token that opens the asset, or None where the asset is open to all; it may have to wait.

        Raises ``token_required``, another ``token_…``, ``overloaded`` where a slow check takes too long,
        or ``origin_*`` where the store has never been listed.
        """
        if not self._listed:
            await self.start()
        if asset.encode() in self.open:
            return None
        if token is None:
            # Where it was never known which assets are open, that is no fault of the viewer's.
            raise StreamGateError(self._away or "token_required")
        verified = self.verifier.read(token) if self.foreign is None else await self.foreign.read(token, asked.address)
        try:
            verified.check(
                method=asked.method,
                scheme=asked.scheme,
                host=asked.host,
                path=asked.path,
                address=asked.address,
                now=asked.now,
            )
        except StreamGateError as error:
            # What is not evaluated yet may say no to the path, which comes before the network.
            unsure = error.code == "token_unsupported"
            if unsure or (error.code == "token_network" and verified.unsupported):
                await self._slowly(verified, asked)
            if not unsure:
                raise self.told(verified, asked, error) from None
        return verified

    def asked(self, request: web.Request, path: str, peer: bytes, client: bytes, carrier: str = "") -> Asked:
        """What ``request`` says of itself now; ``peer`` brought it from ``client``, which may be the same (packed addresses)."""
        headers, scheme = request.headers, request.scheme
        if self._proxies.trusts(peer) and (told := headers.get("X-Forwarded-Proto", "").lower()) in ("http", "https"):
            scheme = told
        now = int(self._clock())
        return Asked(request.method, scheme, headers.get("Host", ""), path, client, now, headers, carrier)

    async def _slowly(self, token: Token, asked: Asked) -> None:
        if self._busy >= self._settings.max_authorizing:
            raise StreamGateError("overloaded", "too many tokens are being checked")
        self._busy += 1
        try:
            async with asyncio.timeout(self._settings.authorize_timeout):
                await self.slow(token, asked)
        except TimeoutError:
            raise StreamGateError("overloaded", "checking the token took too long") from None
        finally:
            self._busy -= 1

    def _renew(self, refs: Mapping[str, AssetRef]) -> None:
        now_open = (
            set() if self._settings.require_token else {name.encode() for name, ref in refs.items() if not ref.gated}
        )
        self.open.difference_update(self.open - now_open)
        self.open.update(now_open)
        self._listed, self._away = True, ""

    async def _refresh(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        # What cannot be listed leaves the table as it was; at first all are gated then. The library has told why.
        try:
            await self._assets.look()
        except StreamGateError as error:
            self._away = error.code if error.code.startswith("origin_") and not self._listed else ""
        except Exception:
            _log.exception("the assets could not be listed")
        took = loop.time() - began
        self._look = None
        often = self._assets.list_interval if self._listed else self._settings.revalidate
        share = _SHARE if self._assets.origin is None else _REMOTE_SHARE
        self._timer = loop.call_later(max(often, _OFTEN_S, took / share), self._again)

    def _again(self) -> None:
        self._timer = None
        self._look = asyncio.ensure_future(self._refresh())


def credential(request: web.Request, in_path: str) -> tuple[str, str] | None:
    """The one token of a request and where it is: ``path``, ``header``, ``query`` or ``cookie``, in this order.

    Raises ``token_ambiguous`` where there are two different ones.
    """
    found = [("path", in_path)] if in_path else []
    found += [("header", value.strip()) for value in request.headers.getall(NAME, ())]
    # As it stands, for a token needs no escapes.
    query = request.raw_path.partition("?")[2]
    found += [("query", value) for name, _, value in (part.partition("=") for part in query.split("&")) if name == NAME]
    cookies = ";".join(request.headers.getall("Cookie", ())).split(";")
    pairs = (part.strip(" \t").partition("=") for part in cookies)
    found += [("cookie", value.strip('"')) for name, _, value in pairs if name in COOKIES]
    if len({value for _, value in found}) > 1:
        raise StreamGateError("token_ambiguous")
    return (found[0][1], found[0][0]) if found else None


def without_token(query: str) -> str:
    """``query`` without the token."""
    return "&".join(part for part in query.split("&") if part.partition("=")[0] != NAME)
