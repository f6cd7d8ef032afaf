"""A bucket behind a proxy that breaks what passes through it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvloop

from streamgate.core.settings import S3Settings
from streamgate.storage.objects.s3 import S3Store, open_s3
from tests.services.fault_proxy import FaultProxy, fault_proxy
from tests.services.seaweed import SeaweedFS

QUICK: dict[str, Any] = {
    "connect_timeout": 0.5,
    "stall_timeout": 0.5,
    "deadline": 3.0,
    "backoff": 0.02,
    "replica_failures": 2,
    "replica_retry": 0.1,
    "replica_successes": 2,
}
"""Settings that do not let tests wait."""

_LOOPS = {
    "test_objects_conformance": ("uvloop",),
    "test_objects_s3_faults": ("uvloop",),
    "test_objects_receiving": ("asyncio", "uvloop"),
}

OpenStore = Callable[..., Awaitable[S3Store]]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], Any]]:
    """asyncio's own loop, and for what is received the one that the edge runs on."""
    loops: dict[str, Callable[[], Any]] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    wanted = _LOOPS.get(item.path.stem, ("asyncio",))
    return {name: loops[name] for name in wanted}


@pytest.fixture(scope="module")
def shared_bucket(seaweed: SeaweedFS) -> str:
    """One for all tests of a module; each takes a prefix of its own."""
    return seaweed.make_bucket()


@pytest.fixture
def prefix(shared_bucket: str) -> str:
    """``bucket/prefix`` with nothing below it."""
    return f"{shared_bucket}/{secrets.token_hex(4)}"


@pytest.fixture
def proxy(s3_environment: SeaweedFS) -> Iterator[FaultProxy]:
    """In front of the S3 server."""
    with fault_proxy(s3_environment.port, http=True) as made:
        yield made


@pytest.fixture
async def open_store(proxy: FaultProxy, prefix: str) -> AsyncIterator[OpenStore]:
    """Opens the prefix through the proxy; with quick settings, and others as they are given."""
    opened: list[S3Store] = []

    async def open_with(**settings: Any) -> S3Store:
        opened.append(await open_s3(f"s3://{prefix}", S3Settings(**{"endpoint": proxy.endpoint, **QUICK, **settings})))
        return opened[-1]

    yield open_with
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_store: OpenStore) -> S3Store:
    """The same with nothing else."""
    return await open_store()
