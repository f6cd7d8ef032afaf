"""One bucket: single requests for ranges of its objects, by aiohttp to signed addresses."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import ssl
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from streamgate.core import trace
from streamgate.core.settings.origin import S3Settings
from streamgate.core.telemetry import Telemetry
from streamgate.storage.objects.s3.address import Address
from streamgate.storage.objects.s3.client import Client
from streamgate.storage.objects.s3.errors import OriginError, of_answer, of_exception
from streamgate.storage.objects.s3.retries import RetryBudget
from streamgate.storage.objects.s3.urls import SignedUrls
from streamgate.storage.objects.store import ObjectInfo

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")
_MAX_ERROR = 8192


class Answer:
    """A head that was checked, and the body behind it: exactly the bytes [``start``, ``end``) of the version ``info``."""

    def __init__(self, info: ObjectInfo, start: int, end: int, response: aiohttp.ClientResponse | None = None) -> None:
        self.info = info
        self.start = start
        self.end = end
        self.closed: Callable[[], None] | None = None
        self._response = response

    async def piece(self) -> bytes:
        """What has arrived, b"" at the end; raises :class:`OriginError`, also where the end comes early."""
        if self._response is None:
            return b""
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, TimeoutError, OSError) as e:
            raise of_exception(self.info.key, e) from None

    def close(self) -> None:
        """Give the connection back, or up where its body was not read whole."""
        if self._response is not None:
            self._response.close()
        if self.closed is not None:
            self.closed()
            self.closed = None


class Bucket:
    """Made by :meth:`open`. At most ``settings.connections`` connections are open, an eighth of them for aioboto3."""

    def __init__(self, address: Address, settings: S3Settings, telemetry: Telemetry | None) -> None:
        self.address = address
        self.name = address.name
        self.settings = settings
        self.budget = RetryBudget(settings.retry_ratio)
        self.telemetry = telemetry
        few = max(1, settings.connections // 8)
        self._for_calls = few
        self._limit = max(1, settings.connections - few)
        self._free = asyncio.Semaphore(self._limit)
        self._head_timeout = settings.connect_timeout + settings.stall_timeout
        self.client: Client
        self._urls: SignedUrls
        self._http: aiohttp.ClientSession

    @classmethod
    async def open(cls, address: Address, settings: S3Settings, telemetry: Telemetry | None = None) -> Bucket:
        """Ready; nothing was sent yet. Raises ``config_invalid``."""
        bucket = cls(address, settings, telemetry)
        bucket.client = await Client.open(address, settings, bucket._for_calls, bucket.budget, bucket.count)
        bucket._urls = SignedUrls(bucket.client, settings.url_lifetime)
        bucket._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=bucket._limit, ssl=await asyncio.to_thread(_trust)),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=settings.connect_timeout, sock_read=settings.stall_timeout
            ),
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
            read_bufsize=settings.buffer,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return bucket

    async def close(self) -> None:
        """Give back the connections."""
        await self._http.close()
        await self.client.close()

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a metric, where there are metrics."""
        if self.telemetry is not None:
            self.telemetry.count(name, amount, **labels)

    async def stat(self, key: str) -> ObjectInfo:
        """HEAD of an object; raises :class:`OriginError`."""
        return head_info(key, await self.client.call("head_object", key))

    async def get(self, key: str, start: int, length: int | None, etag: str | None, within: float) -> Answer:
        """One request for [start, start + length), a second where the signature was not taken; its head after ``within`` s at most.

        Raises :class:`OriginError`. A connection is taken until the answer is closed.
        """
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(now + within):
                await self._free.acquire()
        except TimeoutError:
            raise OriginError("overloaded", f"{self.name}: all {self._limit} connections are in use") from None
        try:
            async with asyncio.timeout_at(min(now + within, asyncio.get_running_loop().time() + self._head_timeout)):
                answer = await self._signed(key, start, length, etag)
        except TimeoutError as e:
            self._free.release()
            raise of_exception(key, e) from None
        except BaseException:
            self._free.release()
            raise
        answer.closed = self._free.release
        return answer

    async def _signed(self, key: str, start: int, length: int | None, etag: str | None) -> Answer:
        for last in (False, True):
            url, fresh = await self._urls.get(key)
            try:
                return await self._get(key, url, start, length, etag)
            except OriginError as e:
                if e.stale or e.region:
                    self._urls.forget(key)
                if last or not (self.client.learn(e) or (e.stale and not fresh)):
                    raise
        raise AssertionError("unreachable")

    async def _get(self, key: str, url: URL, start: int, length: int | None, etag: str | None) -> Answer:
        headers = {}
        if start or length is not None:
            headers["Range"] = f"bytes={start}-{'' if length is None else start + length - 1}"
        if etag is not None:
            headers["If-Match"] = f'"{etag}"'
        if parent := trace.current():
            headers["traceparent"] = parent
        self.count("origin_requests", operation="get")
        response = None
        try:
            proxy = _proxy(url.scheme, url.host or "")
            response = await self._http.get(url, headers=headers, allow_redirects=False, proxy=proxy)
            if response.status not in (200, 206):
                body = await response.content.read(_MAX_ERROR)
                response.close()
                if response.status == 416:
                    return await self._beyond(key, start, etag)
                raise of_answer(key, response.status, response.headers, body=body.decode("latin-1"))
            return _checked(key, response, start, length, etag)
        except (aiohttp.ClientError, TimeoutError, OSError) as e:
            if response is not None:
                response.close()
            raise of_exception(key, e) from None
        except BaseException:
            if response is not None:
                response.close()
            raise

    async def _beyond(self, key: str, start: int, etag: str | None) -> Answer:
        """No byte lies in the range: which object says so?"""
        info = await self.stat(key)
        if etag is not None and info.etag != etag:
            raise OriginError("source_changed", f"{key}: another version is there now")
        if start < info.size:
            raise OriginError("origin_unavailable", f"{key}: it refuses a range that is there", again=True)
        return Answer(info, start, start)


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


def _checked(key: str, response: aiohttp.ClientResponse, start: int, length: int | None, etag: str | None) -> Answer:
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
    modified = 0.0
    with contextlib.suppress(TypeError, ValueError):
        modified = parsedate_to_datetime(headers.get("Last-Modified", "")).timestamp()
    return Answer(ObjectInfo(key, size, told, modified), start, end, response)


@functools.lru_cache(256)
def _proxy(scheme: str, host: str) -> str | None:
    """The proxy that the environment names, which botocore takes from there too. aiohttp would look into netrc each time."""
    return None if proxy_bypass(host) else getproxies().get(scheme)


def _trust() -> ssl.SSLContext:
    """The machine's authorities and, as botocore does, those of AWS_CA_BUNDLE."""
    context = ssl.create_default_context()
    if bundle := os.environ.get("AWS_CA_BUNDLE"):
        context.load_verify_locations(bundle)
    return context
