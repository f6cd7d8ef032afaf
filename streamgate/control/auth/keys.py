"""The site's keys as the auth role uses them: those that sign, all that verify, and the secret behind opaque ids.

They are looked at again and again: a new generation signs, and a retired one no longer counts, without a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from streamgate.access import keyring
from streamgate.access.access_tokens import Signer
from streamgate.access.keyring import Ring
from streamgate.access.keys import AnyKey, SharedKey
from streamgate.core.logging import get_logger
from streamgate.core.settings import Settings
from streamgate.errors import StreamGateError
from streamgate.native.cat import Token, Verifier
from streamgate.storage import keys
from streamgate.storage.kv.events import Event

_log = get_logger("streamgate.auth")
_FOREVER = 2**63 - 1


class SiteKeys:
    """Made by :meth:`open`. ``subjects`` is what opaque ids are made with (:func:`streamgate.access.sessions.opaque`)."""

    def __init__(self, settings: Settings, ring: Ring, found: Sequence[AnyKey]) -> None:
        self.verifier = Verifier()
        self.subjects = keyring.subject_secret(ring.root)
        self._settings = settings
        self._folder = keys.Folder(*keys.place(settings))
        self._looking: asyncio.Task[None] | None = None
        self._behind = False
        self._signs: SharedKey | None = None
        self._take(ring, found)

    @classmethod
    async def open(cls, settings: Settings) -> SiteKeys:
        """The keys that the settings mean, made where there are none. Raises ``config_invalid``."""
        ring = await asyncio.to_thread(keys.ring, settings)
        made = cls(settings, ring, await asyncio.to_thread(keys.configured, settings))
        if settings.tokens.revalidate:
            made._looking = asyncio.create_task(made._look())
        return made

    async def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking

    @property
    def signing(self) -> SharedKey:
        """The key that playback tokens are made with. Raises ``config_invalid`` where there is none."""
        if self._signs is None:
            self._signs = keys.signer(self._settings, self._known, self._ring)
        return self._signs

    @property
    def access(self) -> Signer:
        """The key that access tokens are made with: of the generation that signs."""
        return self._signers[-1]

    def readers(self) -> dict[str, bytes]:
        """Public keys of access tokens by kid."""
        return {signer.kid: signer.public for signer in self._signers}

    def read(self, text: str) -> Token:
        """A playback token of ours, whether or not it has expired; raises ``token_…``."""
        token = self.verifier.read(text)
        if not token.key.leased:
            raise StreamGateError("token_issuer", "only tokens made here have a session")
        return token

    def apply(self, event: Event) -> None:
        """Refuse the tokens of a key that was revoked."""
        if event.type == "revoke.key":
            self.verifier.revoke_kid(event.subject, _FOREVER if event.until is None else event.until)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self._settings.tokens.revalidate)
            try:
                await self.look()
            except Exception:
                _log.exception("the keys could not be looked at")

    async def look(self) -> None:
        """Look once. A key that is gone counts no more, whether or not the ring can be read; that is tried until it can."""
        found = await asyncio.to_thread(self._folder.look)
        if found is not None:
            for problem in found.problems:
                _log.error("a key of playback tokens is not taken", reason=problem)
            self._behind = True
            self._take(self._ring, found.keys)
        if self._behind:
            self._take(await asyncio.to_thread(keys.ring, self._settings), self._known)
            self._behind = False

    def _take(self, ring: Ring, found: Sequence[AnyKey]) -> None:
        self.verifier.configure([key.verifying() for key in found])
        self._known, self._ring, self._signs = list(found), ring, None
        self._signers = keyring.access_signers(ring, self._settings.tokens.site)
