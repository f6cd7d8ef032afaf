"""The keys of playback tokens while a node runs: their folder is looked at again and again, and what changed counts at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from edge.foreign import Foreign
from streamgate.access.foreign import HS256, NUMBERS
from streamgate.access.keys import AnyKey, PublicKey
from streamgate.core.logging import get_logger
from streamgate.native.cat import Verifier
from streamgate.storage.keys import Folder

_log = get_logger("edge.keyring")


class Keyring:
    """Gives ``verifier`` the keys of ``folder`` as they are now, and ``foreign`` those that only verify.

    Every ``interval`` seconds, 0: never again. ``changed`` is told the ids of all keys that count, and ``signing`` in a thread
    all keys, also when it is only another of them that signs.
    """

    def __init__(
        self,
        folder: Folder,
        verifier: Verifier,
        interval: float,
        foreign: Foreign | None = None,
        changed: Callable[[frozenset[bytes]], None] = lambda _: None,
        signing: Callable[[Sequence[AnyKey]], None] = lambda _: None,
    ) -> None:
        self._folder = folder
        self._verifier = verifier
        self._interval = interval
        self._foreign = foreign
        self._changed = changed
        self._signing = signing
        self._task: asyncio.Task[None] | None = None
        self._keys: list[AnyKey] | None = None
        self._found: list[AnyKey] | None = None

    def start(self) -> None:
        """Begin to look; in the event loop."""
        if self._interval:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:
                _log.exception("the keys could not be looked at")
            await asyncio.sleep(self._interval)

    async def look(self) -> None:
        """Look once. A file that is wrong is told of, and the key that it held before counts on; one that is gone does not."""
        found = await asyncio.to_thread(self._folder.look)
        if found is not None:
            for problem in found.problems:
                _log.error("a key of playback tokens is not taken", reason=problem)
            self._found = found.keys
            await asyncio.to_thread(self._signing, found.keys)
        # The folder tells of a change once: what could not be taken is tried again.
        before, keys = self._keys, self._found
        if keys is None or keys == before:
            return
        # Here, and not in the thread: a request is judged by one set of keys.
        # What is known of tokens by a key that is as it was stays known: to look at all of them anew would take long.
        same = {(key.kid, _algorithm(key)) for key in keys if key in (before or [])}
        self._verifier.configure([key.verifying() for key in keys], same)
        self._changed(frozenset(key.kid for key in keys))
        if self._foreign is not None:
            self._foreign.configure(keys)
        self._keys = keys
        if before is not None:
            _log.info("the keys of playback tokens have changed", kids=[key.kid.decode() for key in keys])


def _algorithm(key: AnyKey) -> int:
    return NUMBERS[key.algorithm] if isinstance(key, PublicKey) else HS256
