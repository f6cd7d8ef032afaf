"""A range of an object to its end, whatever breaks on the way: the next request goes on at the offset, of the same version."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from streamgate.storage.objects.s3.answers import Answer
from streamgate.storage.objects.s3.bucket import Bucket
from streamgate.storage.objects.s3.errors import OriginError, of_exception
from streamgate.storage.objects.s3.retries import Patience
from streamgate.storage.objects.store import ObjectInfo, Progress


class Route(Protocol):
    """Which bucket is asked next, and what it calls the version that is read."""

    def pick(self) -> tuple[Bucket, str | None]:
        """(bucket, its ETag; None: whatever is there)."""

    def second(self) -> tuple[Bucket, str | None]:
        """What is asked beside the one that takes long."""

    def answered(self, bucket: Bucket, info: ObjectInfo) -> ObjectInfo:
        """Its head has come, and is of the right version: what the reader is told of it."""

    def options(self) -> int:
        """Buckets that have not failed yet: the time left is shared between them."""

    def failed(self, bucket: Bucket, error: OriginError) -> tuple[OriginError, bool]:
        """(the error to go on with or to raise, whether there is another bucket that can be asked at once)."""


class OneBucket:
    """The only bucket there is; the first answer settles the version."""

    def __init__(self, bucket: Bucket, etag: str | None) -> None:
        self._bucket = bucket
        self._etag = etag

    def pick(self) -> tuple[Bucket, str | None]:
        """It."""
        return self._bucket, self._etag

    second = pick

    def answered(self, bucket: Bucket, info: ObjectInfo) -> ObjectInfo:
        """From now on it is this version."""
        self._etag = info.etag
        return info

    def options(self) -> int:
        """One."""
        return 1

    def failed(self, bucket: Bucket, error: OriginError) -> tuple[OriginError, bool]:
        """As it is."""
        return error, False


class RangeReading:
    """The bytes of one range, see :class:`~streamgate.storage.objects.store.Reading`; ``info`` is there once it is open."""

    def __init__(self, route: Route, key: str, offset: int, length: int | None, patience: Patience) -> None:
        self.info: ObjectInfo
        self._route = route
        self._key = key
        self._at = offset
        self._length = length
        self._patience = patience
        self._clock = asyncio.get_running_loop().time
        self._answer: Answer | None = None
        self._closed = False
        self._bucket, _ = route.pick()

    async def open(self) -> None:
        """Have the head; raises :class:`OriginError` once all attempts are spent."""
        self._bucket.budget.earn()
        self._answer = await self._head()
        self._length = self._answer.end - self._at if self._answer.end > self._at else 0

    def close(self) -> None:
        """Give the connection back, or up where the rest of its answer would come over it."""
        self._closed = True
        self._let_go()

    def _let_go(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._length and not self._closed:
            if piece := await self._next():
                yield piece

    async def into(self, buffer: memoryview, progress: Progress | None) -> None:
        """Fill ``buffer``, which is as long as the range; raises ``source_changed`` where the object ends before."""
        if self._length != len(buffer):
            raise OriginError("source_changed", f"{self._key}: it ends before {self._at + len(buffer)}")
        start = self._at

        def arrived(count: int) -> None:
            self._got(count)
            if progress is not None:
                progress(self._at - start)

        while self._length:
            room = buffer[self._at - start :]
            answer = self._answer = self._answer or await self._head()
            if answer.in_place:
                await self._receive(answer, room, arrived)
            elif piece := await self._next():
                room[: len(piece)] = piece
                if progress is not None:
                    progress(self._at - start)

    async def _receive(self, answer: Answer, room: memoryview, arrived: Callable[[int], None]) -> None:
        """What comes over this connection."""
        began, at = self._clock(), self._at
        stall = self._bucket.settings.stall_timeout
        try:
            await answer.receive(room, arrived, stall, lambda: began + self._patience.left)
        except OriginError as e:
            await self._again(e, began)
        else:
            self._patience.waited(self._clock() - began)
            self._let_go()
        finally:
            self._bucket.count("origin_received_bytes", self._at - at)

    async def _next(self) -> bytes:
        """What has come; b"" where the connection broke, and another attempt may be made."""
        answer = self._answer = self._answer or await self._head()
        began = self._clock()
        try:
            piece = await self._piece(answer)
        except OriginError as e:
            await self._again(e, began)
            return b""
        self._patience.waited(self._clock() - began)
        self._got(len(piece))
        self._bucket.count("origin_received_bytes", len(piece))
        if not self._length:
            self._let_go()
        return piece

    def _got(self, count: int) -> None:
        self._patience.got(count)
        self._at += count
        self._length = (self._length or 0) - count

    async def _piece(self, answer: Answer) -> bytes:
        try:
            # The connection's own timer ends a stall; this one is for the end of patience.
            if self._patience.left < self._bucket.settings.stall_timeout:
                async with asyncio.timeout(self._patience.left):
                    piece = await answer.piece()
            else:
                piece = await answer.piece()
        except TimeoutError as e:
            raise of_exception(self._key, e) from None
        if not piece or len(piece) > (self._length or 0):
            raise OriginError("origin_unavailable", f"{self._key}: a body of the wrong length", again=True)
        return piece

    async def _head(self) -> Answer:
        """The head of what is still to be read, from whichever bucket gives it."""
        while True:
            self._bucket, etag = self._route.pick()
            began = self._clock()
            try:
                answer = await self._ask(self._bucket, etag)
            except OriginError as e:
                await self._again(e, began)
                continue
            self._patience.waited(self._clock() - began)
            self.info = self._route.answered(self._bucket, answer.info)
            return answer

    async def _again(self, error: OriginError, began: float) -> None:
        """Return when another attempt may be made; raises the error where there is none."""
        self._patience.waited(self._clock() - began)
        self._let_go()
        self._bucket.count("origin_failures", code=error.code)
        error, elsewhere = self._route.failed(self._bucket, error)
        await self._patience.pause(error, self._bucket.budget, elsewhere=elsewhere)
        self._bucket.count("origin_retries")

    async def _ask(self, bucket: Bucket, etag: str | None) -> Answer:
        within = self._patience.left / self._route.options()
        after = bucket.settings.hedge_after
        if not after:
            return await bucket.get(self._key, self._at, self._length, etag, within)

        def get(bucket: Bucket, etag: str | None) -> asyncio.Task[Answer]:
            return asyncio.create_task(bucket.get(self._key, self._at, self._length, etag, within))

        asked = {get(bucket, etag): bucket}
        won: Answer | None = None
        try:
            done, _ = await asyncio.wait(asked, timeout=after)
            if not done and bucket.budget.take():
                bucket.count("origin_hedges")
                other, its_etag = self._route.second()
                asked[get(other, its_etag)] = other
            while True:
                done, pending = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if not task.cancelled() and task.exception() is None:
                        self._bucket, won = asked.pop(task), task.result()
                        return won
                if not pending:
                    self._bucket = asked[next(iter(done))]
                    return next(iter(done)).result()
                for task in done:
                    del asked[task]
        finally:
            for task in asked:
                task.cancel()
            try:
                await asyncio.gather(*asked, return_exceptions=True)
            except asyncio.CancelledError:  # they have ended all the same
                if won is not None:
                    won.close()
                raise
            finally:
                for task in asked:
                    if not task.cancelled() and task.exception() is None:
                        task.result().close()
