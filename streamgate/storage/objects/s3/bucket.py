"""One bucket: single requests for ranges of its objects, by aiohttp to signed addresses."""

from __future__ import annotations

import asyncio
import functools
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from streamgate.core import trace
from streamgate.core.settings.origin import S3Settings
from streamgate.core.telemetry import Telemetry
from streamgate.storage.objects.s3.address import Address
from streamgate.storage.objects.s3.answers import Answer, checked, head_info
from streamgate.storage.objects.s3.client import Client
from streamgate.storage.objects.s3.errors import OriginError, of_answer, of_exception
from streamgate.storage.objects.s3.receiving import Connector, Line
from streamgate.storage.objects.s3.retries import RetryBudget
from streamgate.storage.objects.s3.tls import trust
from streamgate.storage.objects.s3.urls import SignedUrls
from streamgate.storage.objects.store import ObjectInfo

_MAX_ERROR = 8192


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
        trusted = await asyncio.to_thread(trust, settings.ca_file)
        bucket.client = await Client.open(address, settings, bucket._for_calls, trusted, bucket.budget, bucket.count)
        bucket._urls = SignedUrls(bucket.client, settings.url_lifetime)
        bucket._http = aiohttp.ClientSession(
            connector=Connector(limit=bucket._limit, ssl=trusted),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=settings.connect_timeout, sock_read=settings.stall_timeout
            ),
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
            read_bufsize=settings.buffer,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        bucket._http._retry_connection = False  # it would send each request twice that breaks before its head
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
        late = asyncio.get_running_loop().time() + within
        if self._free.locked():
            try:
                async with asyncio.timeout_at(late):
                    await self._free.acquire()
            except TimeoutError:
                raise OriginError("overloaded", f"{self.name}: all {self._limit} connections are in use") from None
        else:
            await self._free.acquire()  # at once
        try:
            async with asyncio.timeout_at(min(late, asyncio.get_running_loop().time() + self._head_timeout)):
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
                if (line := Line.of(response)) is not None:
                    line.flow()
                body = await response.content.read(_MAX_ERROR)
                response.close()
                if response.status == 416:
                    return await self._beyond(key, start, etag)
                raise of_answer(key, response.status, response.headers, body=body.decode("latin-1"))
            return checked(key, response, start, length, etag)
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


@functools.lru_cache(256)
def _proxy(scheme: str, host: str) -> str | None:
    """The proxy that the environment names, which botocore takes from there too. aiohttp would look into netrc each time."""
    return None if proxy_bypass(host) else getproxies().get(scheme)
