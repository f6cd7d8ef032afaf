"""Tokens judged as an edge judges them: by the kernel, and what that cannot evaluate by the conditions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multidict import CIMultiDict, CIMultiDictProxy

from edge.authorize import Asked, Gate
from edge.conditions import Conditions
from edge.geo import Atlas
from edge.once import Once
from streamgate.core.settings import ConditionSettings, EdgeSettings, GeoipSettings, RedisSettings, Settings
from streamgate.errors import StreamGateError
from tests.token_factory import Request, verifier


class Judge:
    """An edge without assets and sockets."""

    def __init__(
        self,
        geoip: GeoipSettings | None = None,
        store: Path | None = None,
        timeout: float = 5.0,
        redis: RedisSettings | None = None,
        **conditions: Any,
    ) -> None:
        chosen = ConditionSettings(**conditions)
        self.once = Once(Settings(conditions=chosen, redis=redis or RedisSettings()))
        self.once.path = store
        self.conditions = Conditions(chosen, Atlas(geoip or GeoipSettings()), self.once)
        self.gate = Gate(_Nothing(), EdgeSettings(authorize_timeout=timeout), verifier(), slow=self.conditions.check)  # type: ignore[arg-type]
        self.gate.told = self.conditions.told
        self.gate._listed = True

    async def refusal(
        self, token: str, request: Request | None = None, fields: Mapping[str, str] | None = None, carrier: str = ""
    ) -> StreamGateError | None:
        """Why the token does not open it; None: it does."""
        given = request or Request()
        asked = Asked(
            given.method,
            given.scheme,
            given.host,
            given.path,
            given.address,
            given.now,
            CIMultiDictProxy(CIMultiDict(fields or {"User-Agent": "Mozilla/5.0"})),
            carrier,
        )
        try:
            await self.gate.admits("abc123", token, asked)
        except StreamGateError as error:
            return error
        return None

    def verdict(self, token: str, request: Request | None = None, **more: Any) -> str:
        """``accept``, or the code; where nothing has to be waited for."""
        error = asyncio.run(self.refusal(token, request, **more))
        return "accept" if error is None else error.code


class _Nothing:
    origin = None
    list_interval = 1.0
    on_listing: Any = None
