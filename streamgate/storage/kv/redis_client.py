"""The clients of Redis and of Redis Cluster, as the settings want them: bounded in time and number, and never trying again by themselves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from redis.asyncio import ConnectionPool, Redis, RedisCluster, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    ConnectionError,
    RedisClusterException,
    RedisError,
    TimeoutError,
)

from streamgate.core.settings import RedisSettings
from streamgate.errors import StreamGateError

_PATIENCE = 0.9
"""Part of a call's time after which a cluster's client itself gives an answer up, and so learns that a node is gone.

The other client needs no time limit of its own, which would cost a task for each command.
"""


def connect(settings: RedisSettings) -> Client:
    """A client that connects when it is first used. Raises ``config_invalid``."""
    scheme, _, rest = settings.url.partition("://")
    secure = scheme == "rediss"
    options: dict[str, Any] = {
        "max_connections": settings.pool,
        "socket_connect_timeout": min(settings.connect_timeout, _PATIENCE * settings.timeout),
        "credential_provider": _Credentials(settings) if _has_password(settings) else None,
        # Else each connection reads the client's own version from the disk first.
        "driver_info": None,
    }
    for setting, option in (("ca", "ssl_ca_certs"), ("certificate", "ssl_certfile"), ("key", "ssl_keyfile")):
        if path := getattr(settings, setting):
            if not Path(path).is_file():
                raise StreamGateError("config_invalid", f"redis.{setting}: there is no file {path}")
            if secure:
                options[option] = path
    # Whatever is to be done about a failure is decided above.
    retry = Retry(NoBackoff(), 0)
    if scheme == "unix":
        if settings.cluster:
            raise StreamGateError("config_invalid", "redis.url: a cluster has no socket")
        options |= {"connection_class": UnixDomainSocketConnection, "path": rest}
        return Redis(connection_pool=ConnectionPool(retry=retry, **options))
    hosts, _, database = rest.partition("/")
    nodes = [
        (parts.hostname or "", parts.port or 6379) for host in hosts.split(",") if (parts := urlsplit(f"//{host}"))
    ]
    if settings.cluster:
        if database not in ("", "0"):
            raise StreamGateError("config_invalid", "redis.url: a cluster has database 0 only")
        options["socket_timeout"] = _PATIENCE * settings.timeout
        seeds = [ClusterNode(host, port) for host, port in nodes]
        # reinitialize_steps: a slot that has moved is learnt by itself; to begin anew would cut off all calls under way.
        return Cluster(startup_nodes=seeds, ssl=secure, retry=retry, reinitialize_steps=0, **options)
    if len(nodes) > 1:
        raise StreamGateError("config_invalid", "redis.url: only a cluster has several nodes")
    if not (database or "0").isdigit():
        raise StreamGateError("config_invalid", "redis.url: the database is a number")
    (host, port), number = nodes[0], int(database or 0)
    if secure:
        options["connection_class"] = SSLConnection
    return Redis(connection_pool=ConnectionPool(host=host, port=port, db=number, retry=retry, **options))


async def disconnect(client: Client) -> None:
    """Close all connections; what is broken is closed, too."""
    with contextlib.suppress(RedisError, RedisClusterException, OSError):
        if isinstance(client, Redis):
            await client.aclose(close_connection_pool=True)
        else:
            await client.shut()


def _has_password(settings: RedisSettings) -> bool:
    return bool(settings.username or settings.password_file or settings.password.get_secret_value())


async def get_each(client: Client, names: Sequence[str]) -> list[bytes | None]:
    """The values of these keys, which may lie on different nodes."""
    if isinstance(client, Redis):
        return cast("list[bytes | None]", await client.mget(names))
    return await client.get_each(names)


async def send_each(client: Redis, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """The answers to these commands, which are sent together; one that Redis refuses has its error in its place."""
    pipeline: Any = client.pipeline(transaction=False)
    for words in commands:
        pipeline.execute_command(*words)
    return cast("list[Any]", await pipeline.execute(raise_on_error=False))


class _Credentials(CredentialProvider):
    """User and password, as the file holds it at that time."""

    def __init__(self, settings: RedisSettings) -> None:
        self._user = settings.username or "default"
        self._password = settings.password
        self._file = settings.password_file

    def get_credentials(self) -> tuple[str, str]:
        """Blocks. Raises AuthenticationError, after which the client does not use the connection."""
        if not self._file:
            return self._user, self._password.get_secret_value()
        try:
            return self._user, Path(self._file).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise AuthenticationError(f"redis.password_file cannot be read: {type(error).__name__}") from None

    async def get_credentials_async(self) -> tuple[str, str]:
        """The same in a thread."""
        return await asyncio.to_thread(self.get_credentials) if self._file else self.get_credentials()


class Cluster(RedisCluster):
    """A client that learns the cluster's shape in a task of its own: a call that cannot wait must not end it."""

    _learning: asyncio.Task[RedisCluster] | None = None

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """Send a command to the node that has its key."""
        if self.get_default_node() is None:
            # Else it would go to any node while the shape is being learnt.
            await self.initialize()
        try:
            return await super().execute_command(*args, **kwargs)
        except LookupError as error:
            raise ConnectionError(f"nobody has this key: {error!r}") from error

    async def get_each(self, names: Sequence[str]) -> list[bytes | None]:
        """The values of these keys."""
        try:
            return cast("list[bytes | None]", await self.mget_nonatomic(names))
        except (ConnectionError, TimeoutError, ClusterDownError):
            # Unlike single commands, several together do not have it learn that a node is gone.
            self._initialize = True
            raise

    async def initialize(self) -> RedisCluster:
        """Learn which node has what; called where that is not known, or no longer true."""
        if self._learning is None or self._learning.done():
            self._learning = asyncio.create_task(self._learn())
            self._learning.add_done_callback(lambda task: task.cancelled() or task.exception())
        learning = self._learning
        try:
            return await asyncio.shield(learning)
        except asyncio.CancelledError:
            if learning.cancelled():
                raise ConnectionError("the client was closed") from None
            raise

    async def shut(self) -> None:
        """Close all connections, those of a cluster that failed, too, which ``aclose`` leaves alone."""
        if self._learning is not None:
            self._learning.cancel()
            await asyncio.wait([self._learning])
        await self.aclose()
        await asyncio.gather(*(node.disconnect() for node in self._nodes()), return_exceptions=True)

    async def _learn(self) -> RedisCluster:
        """Learn, and let go of connections to nodes as they were known before, each when its call has ended."""
        before = self._nodes()
        await super().initialize()
        kept = {id(node) for node in self._nodes()}
        for node in before:
            if id(node) not in kept:
                node.update_active_connections_for_reconnect()
                await node.disconnect_free_connections()
        return self

    def _nodes(self) -> list[ClusterNode]:
        """All that have connections; a node that was learnt again is another object, and equal."""
        known = self.nodes_manager
        found = [*known.startup_nodes.values(), *known.nodes_cache.values()]
        found += [node for nodes in known.slots_cache.values() for node in nodes]
        return list({id(node): node for node in found}.values())


Client = Redis | Cluster
