"""What a bucket answers: heads that were checked, and the bodies behind them."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

import aiohttp

from streamgate.storage.objects.s3.errors import OriginError, of_exception
from streamgate.storage.objects.s3.receiving import Line
from streamgate.storage.objects.store import ObjectInfo

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")


class Answer:
    """A head that was checked, and the body behind it: exactly the bytes [``start``, ``end``) of the version ``info``.

    ``in_place``: the body is still to come, as it is, and :meth:`receive` can be used instead of :meth:`piece`.
    """

    def __init__(self, info: ObjectInfo, start: int, end: int, response: aiohttp.ClientResponse | None = None) -> None:
        self.info = info
        self.start = start
        self.end = end
        self.closed: Callable[[], None] | None = None
        self._response = response
        self._line = Line.of(response) if response is not None else None
        self.in_place = self._line is not None and response is not None and "Transfer-Encoding" not in response.headers

    async def piece(self) -> bytes:
        """What has arrived, b"" at the end; raises :class:`OriginError`, also where the end comes early."""
        if self._response is None:
            return b""
        if self._line is not None:
            self._line.flow()
            self._line = None
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, TimeoutError, OSError) as e:
            raise of_exception(self.info.key, e) from None

    async def receive(
        self, room: memoryview, arrived: Callable[[int], None], stall: float, late: Callable[[], float]
    ) -> None:
        """Fill ``room``, which is as long as the body; see :meth:`Line.receive`. Raises :class:`OriginError`."""
        line, response, self._line = self._line, self._response, None
        assert line is not None and response is not None
        try:
            if begin := response.content.read_nowait():  # it came with the head
                room[: len(begin)] = begin
                arrived(len(begin))
            await line.receive(room[len(begin) :], arrived, stall, late)
        except (aiohttp.ClientError, TimeoutError, OSError) as e:
            raise of_exception(self.info.key, e) from None

    def close(self) -> None:
        """Give the connection back, or up where its body was not read whole."""
        if self._response is not None:
            self._response.close()
        if self.closed is not None:
            self.closed()
            self.closed = None


def head_info(key: str, answer: Mapping[str, object]) -> ObjectInfo:
    """What botocore's answer to HEAD says."""
    size, modified = answer.get("ContentLength"), answer.get("LastModified")
    seconds = modified.timestamp() if hasattr(modified, "timestamp") else 0.0
    return ObjectInfo(key, int(str(size)), plain_etag(key, str(answer.get("ETag", ""))), seconds)


def plain_etag(key: str, told: str) -> str:
    """An ETag without its quotes, which some services forget; raises :class:`OriginError` where it is weak or missing."""
    plain = told.removeprefix('"').removesuffix('"')
    if not plain or told.startswith("W/"):
        raise OriginError("origin_unavailable", f"{key}: the store tells no strong ETag")
    return plain


def checked(key: str, response: aiohttp.ClientResponse, start: int, length: int | None, etag: str | None) -> Answer:
    """Believe nothing of a head: it must be of this version, of these bytes, and say how many there are."""
    headers = response.headers
    told = plain_etag(key, headers.get("ETag", ""))
    if etag is not None and told != etag:
        raise OriginError("source_changed", f"{key}: another version is there now")
    length_told = response.content_length
    if response.status == 206:
        found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        first, last, size = map(int, found.groups()) if found else (-1, -1, -1)
    else:
        first, last, size = 0, (length_told or 0) - 1, length_told if length_told is not None else -1
    end = size if length is None else min(size, start + length)
    if (first, last + 1) != (start, end) or length_told != end - start:
        raise OriginError("origin_unavailable", f"{key}: it answers with other bytes than were asked for", again=True)
    return Answer(ObjectInfo(key, size, told, _seconds(headers.get("Last-Modified", ""))), start, end, response)


@functools.lru_cache(1024)
def _seconds(date: str) -> float:
    """A date of HTTP in s since 1970; 0 where it is none."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return 0.0
