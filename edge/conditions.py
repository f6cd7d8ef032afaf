"""What the kernel cannot evaluate of a token: its conditions whole, single use, and what it wants to be answered (catif)."""

from __future__ import annotations

import math
from collections.abc import Callable

from edge.authorize import Asked
from edge.geo import Atlas
from edge.once import Once
from edge.patterns import Patterns
from streamgate.access import conditional_answers
from streamgate.access.conditional_answers import ConditionalAnswer
from streamgate.access.conditions import GRACE, Issuer, Request, World, judge
from streamgate.access.kleene import Logic
from streamgate.core.settings import ConditionSettings
from streamgate.errors import StreamGateError
from streamgate.native.cat import CLAIMS, Token

_FAILED = {
    "token_expired": CLAIMS["exp"], "token_not_yet_valid": CLAIMS["nbf"], "token_method": CLAIMS["catm"],
    "token_path": CLAIMS["catu"], "token_network": CLAIMS["catnip"],
}  # fmt: skip


class Answered(StreamGateError):
    """A refusal that is answered as the token wants it; its code is ours."""

    def __init__(self, code: str, answer: ConditionalAnswer) -> None:
        super().__init__(code)
        self.answer = answer

    @property
    def status(self) -> int:
        """HTTP status of the token's choice."""
        return self.answer.status


class Conditions:
    """Evaluates the claims of tokens, in the event loop: each within limits, from memory, but for the store of what was used."""

    def __init__(self, settings: ConditionSettings, atlas: Atlas, once: Once) -> None:
        self._settings = settings
        self._atlas = atlas
        self._once = once
        self._patterns = Patterns(settings)
        self._hosts = frozenset(host.lower() for host in settings.redirect_hosts)

    def world(self) -> World:
        """What one request may ask."""
        return _World(self._patterns, self._atlas, self._settings.patterns_per_token)

    async def check(self, token: Token, asked: Asked) -> None:
        """Let the request pass, or raise why not: the first no in the order of the checks, else ``token_unsupported``.

        Of requests with a token that may be used once one passes, the others are ``token_replayed``; where that cannot be
        told, ``store_unavailable``.
        """
        claims = token.payload_claims()
        request = Request(asked.method, asked.scheme, asked.host, asked.path, asked.address, asked.now, _fields(asked))
        issuer = Issuer(token.key.issuer, token.key.audience, token.key.prefixes)
        used = self._use(claims, asked.path)
        found = judge(claims, request, self.world(), issuer, bootstrap=used is not None)
        if found.code:
            raise self._refusal(found.code, claims, found.claim)
        # Who brings it in the query is sent to the same playlist with it in the path, and gets nothing yet.
        if used is None or not found.once or asked.carrier == "query":
            return
        # Of ours all that come of one session, renewed ones too, count as one.
        name = None if token.key.leased else claims.get(CLAIMS["cti"])
        handle = name if isinstance(name, bytes) else token.session
        if not await self._once.take(token.key.issuer, handle, used + GRACE, asked.now):
            raise self._refusal("token_replayed", claims, CLAIMS["catreplay"])

    def told(self, token: Token, asked: Asked, error: StreamGateError) -> StreamGateError:
        """What is raised in the place of ``error``, by which the kernel has refused ``token``."""
        if error.code not in _FAILED or (error.code == "token_path" and not _covered(token, asked.path)):
            return error
        return self._refusal(error.code, token.payload_claims(), _FAILED[error.code])

    def _refusal(self, code: str, claims: dict[object, object], claim: object) -> StreamGateError:
        answer = conditional_answers.wanted(claims.get(CLAIMS["catif"]), claim, self._hosts)
        return StreamGateError(code) if answer is None else Answered(code, answer)

    def _use(self, claims: dict[object, object], path: str) -> int | None:
        """When a token that may be used once ends, where this is a request that it may be used for, and that can be kept."""
        exp = claims.get(CLAIMS["exp"])
        begins = path.count("/") == 3 and path.rpartition("/")[2] in self._settings.bootstrap
        if not begins or not self._once.ready or not isinstance(exp, int | float):
            return None
        return math.ceil(exp)


class _World:
    """Expressions, so many of them, and the databases as they are."""

    def __init__(self, patterns: Patterns, atlas: Atlas, most: int) -> None:
        self._patterns = patterns
        self._left = most
        self.number = atlas.geo.number
        self.place = atlas.geo.place

    def search(self, pattern: str, text: str) -> Logic:
        self._left -= 1
        return self._patterns.matches(pattern, text) if self._left >= 0 else None


def _fields(asked: Asked) -> Callable[[str], str | None]:
    def field(name: str) -> str | None:
        values = asked.headers.getall(name, None)
        return None if values is None else ("; " if name.lower() == "cookie" else ", ").join(values)

    return field


def _covered(token: Token, path: str) -> bool:
    return not token.key.prefixes or path.startswith(token.key.prefixes)
