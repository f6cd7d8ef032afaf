"""The S3 protocol by aioboto3: whatever is not the bytes of a GET, and the signed addresses of those."""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
from collections.abc import Callable
from typing import Any

from streamgate.core.settings.origin import S3Settings
from streamgate.errors import StreamGateError
from streamgate.storage.objects.s3.address import Address
from streamgate.storage.objects.s3.errors import OriginError, of_botocore
from streamgate.storage.objects.s3.retries import Patience, RetryBudget
from streamgate.storage.objects.s3.tls import checking

Count = Callable[..., None]
"""As :meth:`streamgate.core.telemetry.Telemetry.count`."""

_LOOK_AGAIN_S = 10.0
_MOST_REGIONS = 4  # that are believed, one after the other
_DEFAULT_REGION = "us-east-1"
# At the level "debug" these write down signatures and signed addresses.
_TALKATIVE = ("aioboto3", "aiobotocore", "boto3", "botocore", "s3transfer")


class Client:
    """Speaks with the service that ``address`` names; made by :meth:`open`."""

    def __init__(
        self,
        address: Address,
        settings: S3Settings,
        connections: int,
        trusted: ssl.SSLContext,
        budget: RetryBudget,
        count: Count,
    ) -> None:
        self._address = address
        self._settings = settings
        self._connections = connections
        self._trusted = trusted
        self._budget = budget
        self._count = count
        self._free = asyncio.Semaphore(connections)
        self._session: Any = None
        self._region = ""
        self._look_again_at = 0.0
        self._opened: dict[str, Any] = {}  # by region; one, as a rule
        self._opening = asyncio.Lock()

    @classmethod
    async def open(
        cls,
        address: Address,
        settings: S3Settings,
        connections: int,
        trusted: ssl.SSLContext,
        budget: RetryBudget,
        count: Count,
    ) -> Client:
        """Ready to speak; nothing was sent yet. Raises ``config_invalid`` where aioboto3 is missing."""
        client = cls(address, settings, connections, trusted, budget, count)
        try:
            loader = await asyncio.to_thread(_load)
        except ImportError as e:
            missing = "sources in S3 need what is not installed: pip install 'streamgate[s3]'"
            raise StreamGateError("config_invalid", missing) from e
        for name in _TALKATIVE:
            if (logger := logging.getLogger(name)).getEffectiveLevel() < logging.INFO:
                logger.setLevel(logging.INFO)
        try:
            client._session = _session(loader)
            own = client._session.region_name or _DEFAULT_REGION
            client._region = own if address.region in ("auto", "") else address.region
            await client._botocore()
        except Exception as e:
            if not of_botocore(address.name, e).unsigned:  # credentials may come later
                wrong = f"{address.name}: {type(e).__name__} in AWS's configuration"
                raise StreamGateError("config_invalid", wrong) from None
        return client

    async def close(self) -> None:
        """Give back the connections."""
        while self._opened:
            _, made = self._opened.popitem()
            await made.close()

    async def call(self, operation: str, key: str = "", size: int = 0, **parameters: Any) -> dict[str, Any]:
        """What the operation answers, after retries where they help; ``size`` bytes sent extend its deadline.

        Raises :class:`OriginError`; what fails on a condition is ``source_changed``.
        """
        patience = Patience(self._settings)
        patience.got(size)
        self._budget.earn()
        if key:
            parameters["Key"] = self._address.prefix + key
        what = key or self._address.name
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            region = self._region
            self._count("origin_requests", operation=operation)
            try:
                async with asyncio.timeout(patience.left), self._free:
                    client = await self._botocore()
                    answer = await getattr(client, operation)(Bucket=self._address.bucket, **parameters)
                    return dict(answer)
            except Exception as e:
                error = of_botocore(what, e)
            if error.unsigned:
                await self._look_again(region)
            patience.waited(clock() - began)
            self._count("origin_failures", code=error.code)
            if self.learn(error, region) and patience.retries == 0:
                error = OriginError(error.code, error.detail, again=True)
            await patience.pause(error, self._budget)
            self._count("origin_retries")

    async def sign(self, key: str) -> str:
        """An address that gives the object to whoever knows it, for ``url_lifetime`` s: a secret. Raises :class:`OriginError`."""
        try:
            async with asyncio.timeout(self._settings.deadline):
                client = await self._botocore()
                where = {"Bucket": self._address.bucket, "Key": self._address.prefix + key}
                url: str = await client.generate_presigned_url(
                    "get_object", Params=where, ExpiresIn=self._settings.url_lifetime
                )
                return url
        except Exception as e:
            error = of_botocore(key, e)
            if error.unsigned:
                await self._look_again(self._region)
            raise error from None

    def learn(self, error: OriginError, used: str | None = None) -> bool:
        """Take the region that a bucket says it is in, where the settings leave that to it; True where that is news."""
        if error.region is None or self._address.region not in ("auto", "") or len(self._opened) >= _MOST_REGIONS:
            return False
        before = self._region if used is None else used
        self._region = error.region
        return before != error.region

    async def _look_again(self, region: str) -> None:
        """A client that found no credentials never looks for them again: the next request makes another, now and then."""
        now = asyncio.get_running_loop().time()
        if now >= self._look_again_at:
            self._look_again_at = now + _LOOK_AGAIN_S
            if (blind := self._opened.pop(region, None)) is not None:
                await blind.close()

    async def _botocore(self) -> Any:
        async with self._opening:
            if self._region not in self._opened:
                made = self._session.client(
                    "s3",
                    region_name=self._region,
                    endpoint_url=self._address.endpoint or None,
                    config=self._config(),
                )
                self._opened[self._region] = await made.__aenter__()
            return self._opened[self._region]

    def _config(self) -> Any:
        from aiobotocore.config import AioConfig

        style = self._address.addressing
        if style == "auto":
            style = "path" if self._address.endpoint else "virtual"
        return AioConfig(
            signature_version="s3v4",
            s3={"addressing_style": style},
            connect_timeout=self._settings.connect_timeout,
            read_timeout=self._settings.stall_timeout,
            max_pool_connections=self._connections,
            http_session_cls=checking(self._trusted),
            retries={"total_max_attempts": 1, "mode": "standard"},  # it is for us to say when
            # Newer checksums are refused by many that speak S3, and are on by default.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )


@functools.cache
def _load() -> Any:
    """botocore's description of S3, for all clients. It and the import take half a second, in a thread."""
    import aioboto3  # noqa: F401
    from botocore.loaders import Loader

    loader = Loader()
    for kind in ("service-2", "endpoint-rule-set-1"):
        loader.load_service_model("s3", kind)
    for name in ("endpoints", "partitions", "_retry"):
        loader.load_data(name)
    return loader


def _session(loader: Any) -> Any:
    import aioboto3
    from aiobotocore.config import AioConfig
    from aiobotocore.httpsession import AIOHTTPSession
    from aiobotocore.session import AioSession

    class CheckingSession(AioSession):  # type: ignore[misc]
        """Whoever gives credentials (STS, SSO) is asked by clients of this session, too: none goes without checks."""

        def create_client(self, *args: Any, config: Any = None, **kwargs: Any) -> Any:
            if getattr(config, "http_session_cls", AIOHTTPSession) is AIOHTTPSession:
                config = AioConfig(**(config._user_provided_options if config is not None else {}))
                config.http_session_cls = checking(None)
            return super().create_client(*args, config=config, **kwargs)

    core = CheckingSession()
    core.register_component("data_loader", loader)
    return aioboto3.Session(botocore_session=core)
