"""What breaks between us and S3, and what is seen of it: right bytes or a clear error, in time, and no storm of retries."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from hashlib import md5

import pytest

from streamgate.core.settings import S3Settings
from streamgate.errors import StreamGateError
from streamgate.storage.objects.s3 import S3Store, open_s3
from tests.services.fault_proxy import Fault, FaultProxy, Request
from tests.services.seaweed import SeaweedFS
from tests.storage.conftest import QUICK, OpenStore

pytestmark = pytest.mark.needs("weed")

MIB = 1024 * 1024
BYTES = secrets.token_bytes(MIB + 17)
SLACK_S = 2.0  # this machine's, above a deadline


def fails(code: str) -> pytest.RaisesExc[StreamGateError]:
    return pytest.RaisesExc(StreamGateError, check=lambda error: error.code == code)


@pytest.fixture
async def film(store: S3Store, proxy: FaultProxy) -> str:
    """The ETag of an object "film"."""
    info = await store.put("film", BYTES)
    proxy.forget()
    return info.etag


async def test_a_range_costs_one_request(store: S3Store, proxy: FaultProxy, film: str) -> None:
    assert await store.read("film", 100, 1000, etag=film) == BYTES[100:1100]
    assert await store.read("film", 5000, 10, etag=film) == BYTES[5000:5010]
    assert proxy.ranges() == [(100, 1099), (5000, 5009)]
    assert [request.headers["if-match"] for request in proxy.requests] == [f'"{film}"'] * 2
    assert proxy.accepted == 1  # over one connection


@pytest.mark.parametrize("fault", [Fault(cut_after=300_000), Fault(stall_after=300_000)], ids=["cut", "stalled"])
@pytest.mark.parametrize("known", [True, False])
async def test_goes_on_at_the_offset(store: S3Store, proxy: FaultProxy, film: str, fault: Fault, known: bool) -> None:
    proxy.on(fault, "film", times=2)
    assert await store.read("film", 17, MIB, etag=film if known else None) == BYTES[17:]
    first, second, third = proxy.asked("film")
    assert first.range == (17, MIB + 16)
    assert second.range is not None and 17 < second.range[0] <= 17 + 300_000
    assert third.range is not None and second.range[0] < third.range[0]
    assert {request.range[1] for request in (first, second, third) if request.range} == {MIB + 16}
    assert second.headers["if-match"] == third.headers["if-match"] == f'"{film}"'


async def test_the_whole_object_goes_on_too(store: S3Store, proxy: FaultProxy, film: str) -> None:
    proxy.on(Fault(cut_after=300_000), "film", times=1)
    assert await store.read("film") == BYTES
    assert proxy.ranges("film")[0] is None
    assert len(proxy.ranges("film")) == 2


@pytest.mark.parametrize(
    "fault",
    [
        Fault(resize=-5),
        Fault(resize=-5, honest=False),
        Fault(resize=5),
        Fault(headers={"Content-Range": f"bytes 0-{MIB - 1}/{len(BYTES)}"}),
        Fault(headers={"Content-Range": None}),
        Fault(headers={"Content-Range": f"bytes 17-{MIB + 16}/{len(BYTES) * 2}"}),
        Fault(headers={"Content-Length": None}),
        Fault(status=200, headers={"ETag": '"1"'}, body=b"other"),
        Fault(status=206, headers={"ETag": '"1"'}, body=b"other"),
        Fault(headers={"ETag": None}),
        Fault(headers={"ETag": 'W/"1"'}),
    ],
    ids=["short", "shorter than told", "long", "other range", "no range", "short of its end", "no length", "200", "206",
         "no ETag", "weak ETag"],
)  # fmt: skip
async def test_a_body_that_is_not_what_was_asked_for(open_store: OpenStore, proxy: FaultProxy, fault: Fault) -> None:
    store = await open_store(attempts=2)
    await store.put("film", BYTES)
    proxy.on(fault, "film", method="GET")
    got = b""
    with fails("origin_unavailable"):
        async with store.reading("film", 17, 2 * MIB) as reading:
            async for piece in reading:
                got += piece
    assert len(got) < MIB and BYTES[17:].startswith(got)
    assert len(proxy.asked("film", "GET")) <= 2
    proxy.heal()
    assert await store.read("film", 17, 2 * MIB) == BYTES[17:]


async def test_bytes_behind_a_body_do_not_become_the_next_answer(store: S3Store, proxy: FaultProxy, film: str) -> None:
    proxy.on(Fault(resize=100_000, honest=False), "film", times=1)
    assert await store.read("film", 17, 1000, etag=film) == BYTES[17:1017]
    for at in range(0, 10_000, 1000):
        assert await store.read("film", at, 1000, etag=film) == BYTES[at : at + 1000]


async def test_changed_between_two_requests(store: S3Store, proxy: FaultProxy, film: str) -> None:
    """The service itself says so: 412."""
    proxy.on(Fault(cut_after=300_000), "film", times=1)
    got = b""
    with fails("source_changed"):
        async with store.reading("film") as reading:
            async for piece in reading:
                if not got:
                    await store.put("film", b"x" * len(BYTES))
                got += piece
    assert len(got) < len(BYTES) and BYTES.startswith(got)
    assert len(proxy.asked("film", "GET")) == 2


@pytest.mark.parametrize("first", [True, False])
async def test_a_service_that_ignores_if_match(store: S3Store, proxy: FaultProxy, film: str, first: bool) -> None:
    proxy.on(Fault() if not first else Fault(headers={"ETag": '"other"'}), "film", times=1)
    proxy.on(Fault(headers={"ETag": '"other"'}), "film")
    if not first:
        assert await store.read("film", 0, 10, etag=film) == BYTES[:10]
    with fails("source_changed"):
        await store.read("film", 10, 10, etag=film)
    assert len(proxy.asked("film")) == (1 if first else 2)


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_a_failing_service(open_store: OpenStore, proxy: FaultProxy, status: int) -> None:
    store = await open_store(attempts=3)
    await store.put("film", BYTES)
    proxy.on(Fault(status=status, body=b"<Error><Code>Oops</Code></Error>"), "film")
    for call in (lambda: store.read("film", 0, 10), lambda: store.stat("film"), lambda: store.put("film", b"1")):
        proxy.forget()
        with fails("origin_unavailable"):
            await call()
        assert len(proxy.requests) == 3
    proxy.heal()
    proxy.on(Fault(status=status), "film", times=1)
    assert await store.read("film", 0, 10) == BYTES[:10]


async def test_retry_after_is_kept(store: S3Store, proxy: FaultProxy, film: str) -> None:
    proxy.on(Fault(status=503, headers={"Retry-After": "1"}), "film", times=1)
    assert await store.read("film", 0, 10, etag=film) == BYTES[:10]
    first, second = proxy.asked("film")
    assert second.at - first.at >= 1


async def test_retry_after_beyond_the_deadline_is_told_at_once(store: S3Store, proxy: FaultProxy, film: str) -> None:
    dates = {"Date": "Mon, 23 Nov 2026 12:00:00 GMT", "Retry-After": "Mon, 23 Nov 2026 12:01:00 GMT"}
    for headers in ({"Retry-After": "60"}, dates):
        proxy.heal()
        proxy.forget()
        proxy.on(Fault(status=503, headers=dict(headers)), "film")
        began = time.monotonic()
        with fails("origin_unavailable"):
            await store.read("film", 0, 10, etag=film)
        assert time.monotonic() - began < 1
        assert len(proxy.requests) == 1


@pytest.mark.parametrize(
    ("status", "code"), [(404, "source_not_found"), (400, "origin_unavailable"), (412, "source_changed")]
)
async def test_no_retry_where_it_is_of_no_use(
    store: S3Store, proxy: FaultProxy, film: str, status: int, code: str
) -> None:
    proxy.on(Fault(status=status), "film")
    with fails(code):
        await store.read("film", 0, 10, etag=film)
    assert len(proxy.requests) == 1


async def test_denied(store: S3Store, proxy: FaultProxy, film: str) -> None:
    denied = Fault(status=403, body=b"<Error><Code>AccessDenied</Code></Error>")
    assert await store.read("film", 0, 10, etag=film) == BYTES[:10]
    proxy.on(denied, "film", times=1)
    assert await store.read("film", 0, 10, etag=film) == BYTES[:10]  # signed anew
    proxy.on(denied, "film")
    proxy.forget()
    with fails("origin_denied"):
        await store.read("film", 0, 10, etag=film)
    with fails("origin_denied"):
        await store.stat("film")
    assert len(proxy.requests) <= 3


async def test_an_expired_token_is_renewed(store: S3Store, proxy: FaultProxy, film: str) -> None:
    assert await store.read("film", 0, 10, etag=film) == BYTES[:10]
    proxy.on(Fault(status=400, body=b"<Error><Code>ExpiredToken</Code></Error>"), "film", times=1)
    assert await store.read("film", 0, 10, etag=film) == BYTES[:10]


async def test_redirects_are_not_followed(store: S3Store, proxy: FaultProxy, film: str) -> None:
    proxy.on(Fault(status=307, headers={"Location": f"{proxy.endpoint}/elsewhere"}), "film")
    with fails("origin_unavailable"):
        await store.read("film", 0, 10, etag=film)
    assert not proxy.asked("elsewhere")


async def test_a_missing_bucket(s3_environment: SeaweedFS) -> None:
    store = await open_s3("s3://no-such-bucket-here", S3Settings(endpoint=s3_environment.endpoint, **QUICK))
    with fails("origin_denied"):
        await store.read("film", 0, 10)
    await store.close()


async def test_refused_then_well_again(store: S3Store, proxy: FaultProxy, film: str) -> None:
    proxy.refuse()
    began = time.monotonic()
    for call in (store.read("film", 0, 10, etag=film), store.stat("film"), store.put("x", b"")):
        with fails("origin_unavailable"):
            await call
    assert time.monotonic() - began < 3 + SLACK_S
    proxy.accept()
    assert await store.read("film", 0, 10, etag=film) == BYTES[:10]


@pytest.mark.parametrize("method", ["read", "stat", "put"])
async def test_silence_ends_with_the_deadline(open_store: OpenStore, proxy: FaultProxy, method: str) -> None:
    store = await open_store(deadline=1.0, attempts=20)
    await store.put("film", BYTES)
    proxy.network.stalled = True
    proxy.forget()
    began = time.monotonic()
    with fails("origin_unavailable"):
        await (store.put("film", b"1") if method == "put" else getattr(store, method)("film"))
    assert 0.9 < time.monotonic() - began < 1 + SLACK_S
    assert len(proxy.requests) <= 3


async def test_a_name_that_is_gone(s3_environment: SeaweedFS) -> None:
    store = await open_s3("s3://films", S3Settings(endpoint="http://gone.invalid", **QUICK))
    began = time.monotonic()
    for call in (store.read("film", 0, 10), store.stat("film")):
        with fails("origin_unavailable"):
            await call
    assert time.monotonic() - began < 6 + SLACK_S
    await store.close()


async def test_slow_is_not_dead(open_store: OpenStore, proxy: FaultProxy) -> None:
    """Longer than the deadline, but at a rate that is enough."""
    store = await open_store(deadline=0.5, stall_timeout=0.4, least_rate=100_000)
    info = await store.put("film", BYTES[:500_000])
    proxy.network.bandwidth = 400_000
    began = time.monotonic()
    assert await store.read("film", etag=info.etag) == BYTES[:500_000]
    assert time.monotonic() - began > 1


async def test_a_trickle_ends(open_store: OpenStore, proxy: FaultProxy) -> None:
    store = await open_store(deadline=1.0, least_rate=100_000)
    info = await store.put("film", BYTES)
    proxy.network.bandwidth = 20_000
    began = time.monotonic()
    with fails("origin_unavailable"):
        await store.read("film", etag=info.etag)
    assert time.monotonic() - began < 1.5 + SLACK_S


async def test_latency_costs_nothing_but_time(store: S3Store, proxy: FaultProxy, film: str) -> None:
    proxy.network.latency = 0.1
    assert await store.read("film", 5, 10_000, etag=film) == BYTES[5:10_005]
    assert len(proxy.requests) == 1


async def test_no_storm(open_store: OpenStore, proxy: FaultProxy) -> None:
    """An outage under load: few requests are repeated."""
    store = await open_store(connections=32, deadline=10.0)
    proxy.on(Fault(status=503))
    outcomes = await asyncio.gather(*(store.read(f"film{n}", 0, 10) for n in range(200)), return_exceptions=True)
    assert {outcome.code for outcome in outcomes if isinstance(outcome, StreamGateError)} == {"origin_unavailable"}
    assert 200 <= len(proxy.requests) <= 200 * 1.2 + 20


async def test_connections_are_bounded(open_store: OpenStore, proxy: FaultProxy) -> None:
    store = await open_store(connections=8, deadline=30.0)
    info = await store.put("film", BYTES)
    proxy.forget()
    proxy.network.latency = 0.01
    reads = [store.read("film", at, 10_000, etag=info.etag) for at in range(0, MIB, 10_000)]
    stats = [store.stat("film") for _ in range(20)]
    got = await asyncio.gather(*reads, *stats)
    assert b"".join(piece for piece in got if isinstance(piece, bytes)) == BYTES[: len(reads) * 10_000]
    assert proxy.most_connections <= 8
    assert len(proxy.requests) == len(reads) + len(stats)


async def test_no_connection_left_is_told(open_store: OpenStore, proxy: FaultProxy) -> None:
    store = await open_store(connections=2, deadline=0.5)
    info = await store.put("film", BYTES * 16)
    async with store.reading("film", etag=info.etag) as slow:
        await anext(aiter(slow))
        with fails("overloaded"):
            await store.read("film", 0, 10, etag=info.etag)
    assert await store.read("film", 0, 10, etag=info.etag) == BYTES[:10]


async def test_a_slow_reader_holds_little(open_store: OpenStore, proxy: FaultProxy) -> None:
    """What it has not taken stays with the store: in our process there is no more than the buffer."""
    store = await open_store(buffer=64 * 1024, stall_timeout=0.3, deadline=0.5)
    whole = BYTES * 24
    info = await store.put("film", whole)
    proxy.forget()
    async with store.reading("film", etag=info.etag) as reading:
        iterator = aiter(reading)
        got = await anext(iterator)
        limit = 2 * 64 * 1024 + 256 * 1024  # the last is what asyncio takes from a socket at once
        assert len(got) <= limit
        request = proxy.asked("film")[0]
        before = -1
        while before != request.sent:  # until the buffers of the kernel are full
            before = request.sent
            await asyncio.sleep(0.5)  # also longer than a stall and the deadline: they count only what is waited for
        assert request.sent < len(whole) / 2
        async for piece in iterator:
            assert len(piece) <= limit
            got += piece
    assert got == whole
    assert len(proxy.requests) == 1


async def test_memory_is_bounded(open_store: OpenStore, proxy: FaultProxy) -> None:
    store = await open_store(memory=MIB, read_limit=4 * MIB, deadline=30.0)
    info = await store.put("film", BYTES)
    proxy.forget()
    proxy.network.latency = 0.01
    got = await asyncio.gather(*(store.read("film", 0, MIB // 2, etag=info.etag) for _ in range(8)))
    assert set(got) == {BYTES[: MIB // 2]}
    assert proxy.most_requests == 2
    waiting = [asyncio.create_task(store.read("film", 0, length)) for length in (MIB, 10, 10)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    assert await waiting[2] == BYTES[:10]
    assert await waiting[0] == BYTES[:MIB]


async def test_hedged(open_store: OpenStore, proxy: FaultProxy) -> None:
    store = await open_store(hedge_after=0.1, stall_timeout=5.0, deadline=10.0)
    info = await store.put("film", BYTES)
    proxy.forget()
    proxy.on(Fault(delay=4), "film", times=1)
    began = time.monotonic()
    assert await store.read("film", 3, 1000, etag=info.etag) == BYTES[3:1003]
    assert time.monotonic() - began < 3
    assert proxy.ranges() == [(3, 1002)] * 2
    assert await store.read("film", 4, 1000, etag=info.etag) == BYTES[4:1004]
    assert len(proxy.requests) == 3  # no second one where the first is quick


async def test_hedges_are_not_asked_for_by_default(store: S3Store, proxy: FaultProxy, film: str) -> None:
    proxy.on(Fault(delay=0.3), "film", times=1)
    assert await store.read("film", 3, 1000, etag=film) == BYTES[3:1003]
    assert len(proxy.requests) == 1


async def test_a_listing_in_pages_over_failures(store: S3Store, proxy: FaultProxy, s3_environment: SeaweedFS) -> None:
    for number in range(5):
        await store.put(f"{number}", b"1")
    proxy.forget()
    proxy.on(Fault(reset=True), when=lambda request: "list-type" in request.query, times=1)
    proxy.on(Fault(status=503), when=lambda request: "list-type" in request.query, times=1)
    assert [info.key async for info in store.list()] == ["0", "1", "2", "3", "4"]
    assert len(proxy.requests) == 3
    proxy.on(Fault(status=403), when=lambda request: "list-type" in request.query)
    with fails("origin_denied"):
        assert [info async for info in store.list()]


async def test_the_region_is_learnt(store: S3Store, proxy: FaultProxy, film: str) -> None:
    def elsewhere(request: Request) -> bool:
        return "%2Feu-far-1%2F" not in request.query and "/eu-far-1/" not in request.headers.get("authorization", "")

    wrong = b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-far-1</Region></Error>"
    proxy.on(Fault(status=400, body=wrong), when=elsewhere)
    assert await store.read("film", 0, 10, etag=film) == BYTES[:10]
    assert await store.read("film", 10, 10, etag=film) == BYTES[10:20]
    assert (await store.stat("film")).etag == film
    assert [request.status for request in proxy.requests] == [400, 206, 206, 200]


async def test_something_that_speaks_no_tls(s3_environment: SeaweedFS) -> None:
    store = await open_s3("s3://films", S3Settings(endpoint=f"https://127.0.0.1:{s3_environment.port}", **QUICK))
    for call in (store.read("film", 0, 10), store.stat("film")):
        with fails("origin_unavailable"):
            await call
    await store.close()


async def test_a_block_that_was_left_asks_for_nothing(store: S3Store, proxy: FaultProxy, film: str) -> None:
    async with store.reading("film", etag=film) as reading:
        pieces = aiter(reading)
        await anext(pieces)
    assert [piece async for piece in pieces] == []
    assert len(proxy.requests) == 1
    async with store.reading("film", etag=film) as reading:
        pass
    assert [piece async for piece in reading] == []
    assert len(proxy.requests) == 2


async def test_a_reader_that_gives_up_frees_its_connection(open_store: OpenStore, proxy: FaultProxy) -> None:
    store = await open_store(connections=2, stall_timeout=5, deadline=10)
    info = await store.put("film", BYTES)
    for fault in (Fault(delay=30), Fault(stall_after=1000)):
        proxy.heal()
        proxy.forget()
        proxy.on(fault, "film", method="GET", times=1)
        reader = asyncio.create_task(store.read("film", etag=info.etag))
        async with asyncio.timeout(5):
            while not proxy.requests:
                await asyncio.sleep(0.01)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert await store.read("film", 0, 10, etag=info.etag) == BYTES[:10]


async def test_nothing_is_ever_mixed(open_store: OpenStore, proxy: FaultProxy) -> None:
    """Replaced again and again while readers are cut, stalled and refused: each has one version whole, or an error."""
    store = await open_store(deadline=5, stall_timeout=0.3, attempts=6, retry_ratio=1)
    chance = random.Random(7)
    size = 700_001
    versions: dict[str, int] = {}

    async def replace(number: int) -> None:
        data = bytes([number]) * size
        versions[md5(data, usedforsecurity=False).hexdigest()] = number  # as S3 names what comes in one piece
        await store.put("film", data)

    await replace(0)
    faults = [
        Fault(cut_after=1), Fault(cut_after=300_000), Fault(stall_after=200_000), Fault(resize=-1), Fault(resize=7),
        Fault(resize=9, honest=False), Fault(reset=True), Fault(status=503), Fault(delay=0.2), Fault(status=500),
    ]  # fmt: skip
    for _ in range(60):
        proxy.on(chance.choice(faults), "film", method="GET", times=1)
        proxy.on(Fault(), "film", method="GET", times=1)
    whole, broken = 0, 0

    async def read() -> None:
        nonlocal whole, broken
        for _ in range(6):
            got, number = b"", -1
            try:
                async with store.reading("film", 1, size) as reading:
                    number = versions[reading.info.etag]
                    async for piece in reading:
                        got += piece
                assert len(got) == size - 1
                whole += 1
            except StreamGateError as e:
                assert e.code in ("source_changed", "origin_unavailable"), e
                broken += 1
            assert set(got) <= {number}

    async def write() -> None:
        for number in range(1, 8):
            await replace(number)
            await asyncio.sleep(0.1)

    await asyncio.gather(write(), *(read() for _ in range(6)))
    assert whole + broken == 36 and whole >= 18
