"""Two buckets as one store: fail-over within one request, fail-back without flapping, never the bytes of one that disagrees."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from streamgate.core.settings import S3Settings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.storage.objects.s3 import ReplicatedStore, S3Store, open_s3
from streamgate.storage.objects.s3.health import Health
from tests.services.fault_proxy import Fault, FaultProxy, fault_proxy
from tests.services.seaweed import SeaweedFS
from tests.storage.conftest import QUICK

pytestmark = pytest.mark.needs("weed")

MIB = 1024 * 1024
BYTES = secrets.token_bytes(6 * MIB + 17)
OTHER = secrets.token_bytes(MIB)
WAIT_S = 10.0


class Site:
    """Buckets ``a`` and ``b``, each behind a proxy of its own, and stores over both."""

    def __init__(self, seaweed: SeaweedFS, bucket: str, first: FaultProxy, second: FaultProxy) -> None:
        own = secrets.token_hex(4)
        self.a, self.b = first, second
        self.addresses = [f"s3://{bucket}/{own}-a", f"s3://{bucket}/{own}-b?endpoint={second.endpoint}"]
        self.telemetry = Telemetry()
        self.direct = seaweed.endpoint
        self._opened: list[S3Store] = []

    async def open(self, data: Path | None = None, **settings: Any) -> ReplicatedStore:
        """Both as one; what is found out is remembered in the folder ``data``."""
        given = {"endpoint": self.a.endpoint, "replicas": (self.addresses[1],), **QUICK, **settings}
        store = await open_s3(self.addresses[0], S3Settings(**given), self.telemetry, data)
        assert isinstance(store, ReplicatedStore)
        self._opened.append(store)
        return store

    async def each(self) -> tuple[S3Store, S3Store]:
        """Each for itself and past the proxies, to arrange what is in them."""
        made = [
            await open_s3(address.partition("?")[0], S3Settings(endpoint=self.direct, part_size=5 * MIB))
            for address in self.addresses
        ]
        self._opened += made
        return made[0], made[1]

    async def put(self, key: str, data: bytes, other: bytes | None = None) -> None:
        """``data`` into both, or ``other`` into b."""
        a, b = await self.each()
        await asyncio.gather(a.put(key, data), b.put(key, data if other is None else other))

    async def close(self) -> None:
        for store in self._opened:
            await store.close()


@pytest.fixture
def proxies(s3_environment: SeaweedFS) -> Iterator[tuple[FaultProxy, FaultProxy]]:
    port = s3_environment.port
    with fault_proxy(port, http=True) as first, fault_proxy(port, http=True) as second:
        yield first, second


@pytest.fixture
async def site(
    s3_environment: SeaweedFS, shared_bucket: str, proxies: tuple[FaultProxy, FaultProxy]
) -> AsyncIterator[Site]:
    made = Site(s3_environment, shared_bucket, *proxies)
    yield made
    await made.close()


def fails(code: str) -> pytest.RaisesExc[StreamGateError]:
    return pytest.RaisesExc(StreamGateError, check=lambda error: error.code == code)


async def until(check: Callable[[], Any]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not check():
            await asyncio.sleep(0.01)


async def test_read_from_the_first(site: Site) -> None:
    await site.put("film", BYTES[:MIB])
    store = await site.open()
    info = await store.stat("film")
    assert info.etag == (await (await site.each())[1].stat("film")).etag
    assert await store.read("film", 5, 1000, etag=info.etag) == BYTES[5:1005]
    assert [info.key async for info in store.list()] == ["film"]
    assert site.a.ranges("film") == [(5, 1004)]
    assert [request.method for request in site.b.requests] == ["HEAD"]
    written = await store.put("new", b"1")
    assert await store.read("new") == b"1" and not site.b.asked("new", "PUT")
    assert (await store.stat("new")).etag == written.etag


@pytest.mark.parametrize("how", ["refused", "silent", "denied", "failing"])
async def test_fail_over_within_one_request(site: Site, how: str) -> None:
    await site.put("film", BYTES[:MIB])
    store = await site.open(replica_retry=60)
    info = await store.stat("film")
    site.b.forget()
    if how == "refused":
        site.a.refuse()
    elif how == "silent":
        site.a.network.stalled = True
    else:
        site.a.on(Fault(status=403 if how == "denied" else 500))
    for _ in range(4):
        began = time.monotonic()
        assert await store.read("film", 5, 1000, etag=info.etag) == BYTES[5:1005]
        assert time.monotonic() - began < QUICK["deadline"]
    assert site.b.ranges() == [(5, 1004)] * 4
    assert not store.health[store.buckets[0]].up
    assert site.telemetry.value("origin_replicas_down") == 1
    site.a.forget()
    began = time.monotonic()
    assert await store.read("film", 7, 1000, etag=info.etag) == BYTES[7:1007]
    assert (await store.stat("film")).etag == info.etag
    assert not site.a.accepted and not site.a.requests  # nobody waits for it any more


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("attempts", [1, 4])
async def test_goes_on_in_the_other_bucket(site: Site, attempts: int, in_place: bool) -> None:
    await site.put("film", BYTES[:MIB])
    store = await site.open(attempts=attempts)
    info = await store.stat("film")
    site.a.on(Fault(cut_after=300_000), "film", times=1)
    site.a.on(Fault(reset=True))
    buffer = bytearray(MIB - 5)
    if in_place:
        await store.read_into("film", 5, memoryview(buffer), etag=info.etag)
    assert (buffer if in_place else await store.read("film", 5, MIB, etag=info.etag)) == BYTES[5:MIB]
    assert site.a.ranges() == [(5, MIB - 1 if in_place else MIB + 4)]
    (rest,) = site.b.ranges()
    assert rest is not None and 5 < rest[0] <= 300_005 and rest[1] == MIB - 1
    assert site.b.asked("film", "GET")[0].headers["if-match"] == f'"{info.etag}"'


async def test_fail_back(site: Site) -> None:
    await site.put("film", BYTES[:MIB])
    store = await site.open()
    info = await store.stat("film")
    site.a.refuse()
    health = store.health[store.buckets[0]]
    for _ in range(3):
        assert await store.read("film", 5, 10, etag=info.etag) == BYTES[5:15]
    assert not health.up
    site.a.accept()
    site.a.forget()
    await until(lambda: health.up)
    assert site.a.ranges() == [(0, 0)] * QUICK["replica_successes"]  # no viewer has tried it out
    site.b.forget()
    assert await store.read("film", 6, 10, etag=info.etag) == BYTES[6:16]
    assert site.a.ranges()[-1] == (6, 15) and not site.b.requests
    assert site.telemetry.value("origin_replicas_down") == 0


@pytest.mark.parametrize("answers", [True, False], ids=["fails in earnest", "fails probes"])
async def test_no_flapping(answers: bool) -> None:
    """A bucket that does not stay well is tried ever more seldom, up to a bound."""
    pauses: list[float] = []
    ups = 0

    async def probe() -> bool:
        return answers or len(pauses) > 8

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    def changed(up: bool) -> None:
        nonlocal ups
        ups += up
        if up and ups < 9:
            asyncio.get_running_loop().call_soon(health.failed)

    settings = S3Settings(replica_failures=1, replica_successes=1, replica_retry=10)
    health = Health(settings, probe, changed, sleep)
    health.failed()
    await until(lambda: health.up and len(pauses) >= 9)
    await health.close()
    steps = [10, 20, 40, 80, 160, 160, 160, 160, 160]
    assert pauses[:9] == [pytest.approx(step, rel=0.2) for step in steps]


async def test_etags_differ_but_not_the_bytes(site: Site) -> None:
    """As of uploads in parts of different sizes."""
    a, _ = await site.each()
    await a.put("film", BYTES)
    b = await open_s3(site.addresses[1].partition("?")[0], S3Settings(endpoint=site.direct, part_size=16 * MIB))
    await b.put("film", BYTES)
    etags = [(await each.stat("film")).etag for each in (a, b)]
    await b.close()
    assert etags[0] != etags[1]

    store = await site.open()
    info = await store.stat("film")
    assert info.etag not in etags
    asked = len(site.a.requests), len(site.b.requests)
    assert await store.stat("film") == info
    assert (len(site.a.requests), len(site.b.requests)) == (asked[0] + 1, asked[1] + 1)  # the rest is remembered
    assert await store.read("film", 5, 1000, etag=info.etag) == BYTES[5:1005]
    assert site.a.asked("film")[-1].headers["if-match"] == f'"{etags[0]}"'
    site.a.refuse()
    for _ in range(3):
        assert await store.read("film", 6, 1000, etag=info.etag) == BYTES[6:1006]
    assert site.b.asked("film")[-1].headers["if-match"] == f'"{etags[1]}"'
    assert (await store.stat("film")).etag == info.etag
    listed = {found.key: found.etag async for found in store.list()}
    assert listed["film"] == info.etag


@pytest.mark.parametrize(
    "other", [BYTES[:500_000] + OTHER[500_000:], BYTES[: MIB - 1], b""], ids=["other bytes", "other size", "empty"]
)
async def test_one_that_disagrees_is_left_out(site: Site, other: bytes) -> None:
    await site.put("film", BYTES[:MIB], other)
    store = await site.open()
    with structlog.testing.capture_logs() as logs:
        info = await store.stat("film")
        for _ in range(3):
            assert (await store.stat("film")).etag == info.etag
    assert [line["event"] for line in logs] == ["a bucket disagrees and is left out"]
    assert site.telemetry.value("origin_replicas_left_out") == 1
    site.a.refuse()
    site.b.forget()
    for _ in range(3):
        with fails("origin_unavailable"):
            await store.read("film", 5, 1000, etag=info.etag)
    assert not site.b.ranges()


async def test_one_that_lacks_it(site: Site) -> None:
    a, b = await site.each()
    await a.put("film", BYTES[:1000])
    await b.put("lost", BYTES[:1000])
    store = await site.open()
    info = await store.stat("film")
    assert await store.read("film", etag=info.etag) == BYTES[:1000]
    with fails("source_not_found"):
        await store.stat("lost")
    assert not site.b.ranges()


async def test_one_that_loses_it_later(site: Site) -> None:
    await site.put("film", BYTES[:MIB])
    store = await site.open()
    info = await store.stat("film")
    _, b = await site.each()
    await b.put("film", OTHER)
    site.a.on(Fault(cut_after=300_000), "film", times=1)
    site.a.on(Fault(reset=True), "film", times=1)
    got = await store.read("film", 5, MIB, etag=info.etag)  # from a, then b, which refuses, then a again
    assert got == BYTES[5:MIB]
    assert site.telemetry.value("origin_replicas_left_out") == 1
    assert [request.status for request in site.b.asked("film", "GET")] == [412]


async def test_replaced_in_the_first_and_then_in_the_second(site: Site) -> None:
    await site.put("film", BYTES[:MIB])
    store = await site.open()
    old = await store.stat("film")
    a, b = await site.each()
    await a.put("film", OTHER)
    with fails("source_changed"):
        await store.read("film", 0, 10, etag=old.etag)
    new = await store.stat("film")
    assert new.etag != old.etag
    site.a.on(Fault(reset=True), method="GET")
    with fails("origin_unavailable"):
        await store.read("film", 0, 10, etag=new.etag)  # b has the old one still
    await b.put("film", OTHER)
    store.health[store.buckets[0]].answered()
    assert (await store.stat("film")).etag == new.etag
    assert await store.read("film", 0, 10, etag=new.etag) == OTHER[:10]


async def test_an_older_copy_is_not_a_new_version(site: Site) -> None:
    a, b = await site.each()
    await b.put("film", BYTES[:1000])
    await a.put("film", OTHER[:1000])
    site.b.on(Fault(headers={"Last-Modified": "Mon, 02 Nov 2026 10:00:00 GMT"}), "film")
    store = await site.open()
    info = await store.stat("film")
    site.a.refuse()
    with fails("origin_unavailable"):
        await store.stat("film")
    site.a.accept()
    assert (await store.stat("film")).etag == info.etag


async def test_a_new_process_while_the_first_is_down(site: Site) -> None:
    await site.put("film", BYTES[:MIB])
    etag = (await (await site.open()).stat("film")).etag
    site.a.refuse()
    store = await site.open()
    assert await store.read("film", 5, 1000, etag=etag) == BYTES[5:1005]
    assert [info.etag async for info in store.list()] == [etag]
    with fails("source_changed"):
        await store.read("film", 5, 1000, etag="other")


async def test_all_are_down(site: Site) -> None:
    await site.put("film", BYTES[:MIB])
    store = await site.open(deadline=1.0, stall_timeout=0.3)
    info = await store.stat("film")
    for proxy in (site.a, site.b):
        proxy.network.stalled = True
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: store.read("film", 0, 10, etag=info.etag),
        lambda: store.stat("film"),
    ]
    for call in calls:
        began = time.monotonic()
        with fails("origin_unavailable"):
            await call()
        assert time.monotonic() - began < 1 + 2
    site.b.heal()
    site.b.kill()
    assert await store.read("film", 5, 10, etag=info.etag) == BYTES[5:15]


async def test_hedged_with_the_other_bucket(site: Site) -> None:
    await site.put("film", BYTES[:MIB])
    store = await site.open(hedge_after=0.1, stall_timeout=3, deadline=8)
    info = await store.stat("film")
    site.a.on(Fault(delay=2.5), method="GET")
    began = time.monotonic()
    assert await store.read("film", 5, 1000, etag=info.etag) == BYTES[5:1005]
    assert time.monotonic() - began < 2
    assert site.a.ranges() == site.b.ranges() == [(5, 1004)]


async def test_a_slow_copy_does_not_hold_up_the_first(site: Site) -> None:
    await site.put("film", BYTES[:MIB])
    store = await site.open(stall_timeout=8, deadline=20, connect_timeout=0.3)
    site.b.on(Fault(delay=7))
    began = time.monotonic()
    info = await store.stat("film")
    assert await store.read("film", 5, 10, etag=info.etag) == BYTES[5:15]
    assert time.monotonic() - began < 5


@pytest.mark.slow
async def test_the_first_region_is_dead_for_a_while(site: Site) -> None:
    """With the settings as they come: nobody waits longer than a deadline, one fail-over, one fail-back."""
    await site.put("film", BYTES[:MIB])
    usual = S3Settings().model_dump(include=set(QUICK))
    store = await site.open(**usual)
    info = await store.stat("film")
    switches: list[bool] = []
    first = store.health[store.buckets[0]]
    took: list[float] = []
    clock = asyncio.get_running_loop().time

    async def watch_for(seconds: float) -> None:
        end = clock() + seconds
        while clock() < end:
            began = clock()
            at = len(took) * 1000 % MIB
            assert await store.read("film", at, 1000, etag=info.etag) == BYTES[at : min(at + 1000, MIB)]
            took.append(clock() - began)
            if not switches or switches[-1] != first.up:
                switches.append(first.up)
            await asyncio.sleep(0.05)

    await watch_for(2)
    site.a.network.stalled = True
    site.a.kill()
    await watch_for(15)
    site.a.heal()
    site.a.kill()
    async with asyncio.timeout(usual["replica_retry"] * 16 * 1.2 * usual["replica_successes"]):
        while not first.up:
            await watch_for(1)
    site.b.forget()
    await watch_for(5)
    assert switches == [True, False, True]
    assert max(took) < usual["deadline"]
    assert sum(seconds > 1 for seconds in took) <= usual["replica_failures"]
    assert not site.b.ranges()
