"""The S3 store beside its faults: addresses, secrets, uploads, signatures, and what it needs."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiobotocore.client import AioBaseClient

from streamgate.core.settings import S3Settings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.storage.objects.s3 import S3Store, bucket, client, open_s3
from streamgate.storage.objects.s3.address import Address, parse
from streamgate.storage.objects.s3.errors import of_answer
from streamgate.storage.objects.s3.retries import RetryBudget
from streamgate.storage.objects.s3.urls import SignedUrls
from streamgate.storage.objects.store import open_store as open_any
from tests.services.fault_proxy import Fault, FaultProxy, Request
from tests.services.seaweed import SeaweedFS
from tests.storage.conftest import QUICK, OpenStore

MIB = 1024 * 1024
needs_weed = pytest.mark.needs("weed")


def fails(code: str, said: str = "") -> pytest.RaisesExc[StreamGateError]:
    return pytest.RaisesExc(StreamGateError, check=lambda error: error.code == code and said in error.detail)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://films", Address("films", "", "", "auto", "auto")),
        ("s3://films/", Address("films", "", "", "auto", "auto")),
        ("s3://films/a/b/", Address("films", "a/b/", "", "auto", "auto")),
        ("s3://films/a%20b", Address("films", "a b/", "", "auto", "auto")),
        (
            "s3://films/a?endpoint=https://s3.example.net:9000&region=eu-1&addressing=virtual",
            Address("films", "a/", "https://s3.example.net:9000", "eu-1", "virtual"),
        ),
    ],
)
def test_addresses(url: str, expected: Address) -> None:
    assert parse(url, S3Settings()) == expected


@pytest.mark.parametrize(
    "url",
    [
        "s3://", "s3:///films", "s3://KEY:hunter2@films", "s3://films/a//b", "s3://films/../b", "s3://films?key=hunter2",
        "s3://films?endpoint=ftp://host", "s3://films?endpoint=https://u:hunter2@host", "s3://films#hunter2",
        "s3://films?endpoint=https://host/path", "s3://films?endpoint=https://host:99999", "s3://fi lms",
        "s3://films?addressing=odd", "https://films/a", "s3://f",
    ],
)  # fmt: skip
def test_wrong_addresses_are_told_without_their_secrets(url: str) -> None:
    with pytest.raises(StreamGateError) as caught:
        parse(url, S3Settings())
    assert caught.value.code == "config_invalid"
    assert "hunter2" not in str(caught.value)


async def test_other_stores_are_unknown() -> None:
    with fails("config_invalid", "ftp://"):
        await open_any("ftp://host/films", S3Settings())


async def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aioboto3", None)
    client._load.cache_clear()
    with fails("config_invalid", "pip install 'streamgate[s3]'"):
        await open_any("s3://films", S3Settings())


async def test_a_replica_that_is_the_same_bucket() -> None:
    with fails("config_invalid", "twice"):
        await open_s3("s3://films/a", S3Settings(replicas=("s3://films/a/",)))


@needs_weed
async def test_no_secret_is_told(
    store: S3Store,
    open_store: OpenStore,
    proxy: FaultProxy,
    s3_environment: SeaweedFS,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither keys nor signed addresses, whatever fails, with everything logged."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "level", logging.DEBUG)
    caplog.set_level(logging.DEBUG)
    told = [store.name, repr(store), repr(store.__dict__)]
    faults = [
        Fault(),
        Fault(status=403, body=b"<Error><Code>AccessDenied</Code><StringToSign>x</StringToSign></Error>"),
        Fault(status=404),
        Fault(status=503, headers={"Retry-After": "99"}),
        Fault(status=301),
        Fault(reset=True),
        Fault(cut_after=10),
        Fault(resize=3),
        Fault(headers={"Transfer-Encoding": "odd"}),
        Fault(headers={"Content-Range": "x" * 20_000}),
    ]
    store = await open_store(attempts=2)
    with structlog.testing.capture_logs() as logs:
        await store.put("film", b"0" * 1000)
        for fault in faults:
            proxy.heal()
            proxy.on(fault)
            calls = (store.read("film", 0, 1000, etag="e"), store.read("film"), store.stat("film"), store.put("x", b""))
            for call in calls:
                try:
                    told.append(repr(await call))
                except StreamGateError as e:
                    told += [str(e), repr(e), repr(e.__dict__), "".join(traceback.format_exception(e))]
    told += [repr(logs), caplog.text, *(record.getMessage() for record in caplog.records)]
    everything = "\n".join(told)
    signed = {request.query for request in proxy.requests if "X-Amz-Signature" in request.query}
    assert signed and len(told) > 60
    signatures = {query.partition("X-Amz-Signature=")[2].partition("&")[0] for query in signed}
    for secret in ("X-Amz", "x-amz-signature", s3_environment.secret_key, *signed, *signatures):
        assert secret not in everything


@needs_weed
async def test_without_credentials(proxy: FaultProxy, seaweed: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_LOOK_AGAIN_S", 0.0)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = await open_s3("s3://films", S3Settings(endpoint=proxy.endpoint, **QUICK))
    for call in (store.read("film"), store.stat("film")):
        with fails("origin_denied", "credentials"):
            await call
    assert not proxy.requests
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    with fails("origin_denied", "there is no such bucket"):  # the role was given to the machine a little later
        await store.read("film")
    await store.close()


async def test_a_machine_whose_role_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store opens without it, and says why it does not read."""
    monkeypatch.setattr(client, "_LOOK_AGAIN_S", 0.0)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/role")
    monkeypatch.setenv("AWS_METADATA_SERVICE_NUM_ATTEMPTS", "1")
    monkeypatch.setattr("aiobotocore.utils.AioContainerMetadataFetcher.SLEEP_TIME", 0)
    store = await open_s3("s3://films", S3Settings(endpoint="http://127.0.0.1:1", **QUICK))
    for call in (store.read("film"), store.stat("film")):
        with fails("origin_denied", "credentials"):
            await call
    await store.close()


async def test_a_role_is_asked_for_on_this_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that any host may give are an attacker's way in: botocore's rule holds here too."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://192.0.2.1/role")
    asked = list[str]()

    async def ask(_: object, url: str, *arguments: object) -> dict[str, str]:
        asked.append(url)
        return {}

    monkeypatch.setattr("aiobotocore.utils.AioContainerMetadataFetcher._retrieve_credentials", ask)
    with fails("config_invalid", "ValueError"):
        await open_s3("s3://films", S3Settings(endpoint="http://127.0.0.1:1", **QUICK))
    assert not asked


async def test_while_there_are_no_credentials_one_client_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_LOOK_AGAIN_S", 0.0)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    made, ended = list[Any](), list[Any]()

    async def enter(self: Any) -> Any:
        made.append(self)
        return self

    async def close(self: Any) -> None:
        ended.append(self)

    monkeypatch.setattr(AioBaseClient, "__aenter__", enter)
    monkeypatch.setattr(AioBaseClient, "close", close)
    store = await open_s3("s3://films", S3Settings(endpoint="http://127.0.0.1:1", **QUICK))
    for _ in range(3):
        with fails("origin_denied", "credentials"):
            await store.stat("film")
    assert len(made) == 3 and ended == made
    await store.close()
    assert ended == made


def test_a_wrong_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with fails("config_invalid", "ProfileNotFound"):
        asyncio.run(open_s3("s3://films", S3Settings()))


def test_only_a_name_is_a_region() -> None:
    for told, region in (("eu-1", "eu-1"), ("evil.example/", None), ("", None), ("a" * 65, None)):
        assert of_answer("film", 400, {"x-amz-bucket-region": told}).region == region
    assert of_answer("film", 400, {}, body="<Error><Region>eu-2</Region>").region == "eu-2"


@needs_weed
async def test_wrong_credentials(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    store = await open_s3("s3://films", S3Settings(endpoint=proxy.endpoint, **QUICK))
    for call in (store.read("film"), store.stat("film"), store.put("film", b"")):
        with fails("origin_denied"):
            await call
    await store.close()
    assert len(proxy.requests) == 3


@needs_weed
async def test_bucket_in_the_name_of_the_host(
    seaweed: SeaweedFS, shared_bucket: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def everything_is_here(host: str, *rest: Any, **options: Any) -> Any:
        return resolve("127.0.0.1" if host.endswith(".localhost") else host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", everything_is_here)
    endpoint = f"http://localhost:{proxy.port}"
    store = await open_s3(f"s3://{shared_bucket}/virtual", S3Settings(endpoint=endpoint, addressing="virtual", **QUICK))
    await store.put("film", b"bytes")
    assert await store.read("film") == b"bytes"
    assert (await store.stat("film")).size == 5
    await store.close()
    assert {request.path for request in proxy.requests} == {"/virtual/film"}
    assert {request.headers["host"] for request in proxy.requests} == {f"{shared_bucket}.localhost:{proxy.port}"}


@needs_weed
async def test_no_acl_is_sent(open_store: OpenStore, proxy: FaultProxy) -> None:
    """Nor a checksum of newer SDKs: with no request that we have."""
    store = await open_store(part_size=5 * MIB, stall_timeout=5.0, deadline=15.0)
    await store.put("small", b"bytes")
    await store.put("film", bytes(6 * MIB), only_new=True)
    await store.read("film", 0, 10)
    await store.stat("film")
    assert [info.key async for info in store.list()] == ["film", "small"]
    await store.delete("film")
    assert {request.method for request in proxy.requests} == {"PUT", "POST", "GET", "HEAD", "DELETE"}
    for request in proxy.requests:
        sent = [*request.headers, request.query.lower()]
        assert not [name for name in sent if "acl" in name or "grant" in name or "trailer" in name or "crc" in name]


@needs_weed
async def test_parts_in_place_of_a_version(open_store: OpenStore, proxy: FaultProxy) -> None:
    """The condition goes with the request that makes the object, and of two who replace the same one only one does."""
    store = await open_store(part_size=5 * MIB, stall_timeout=5.0, deadline=15.0)
    first = await store.put("film", bytes(6 * MIB))
    outcomes = await asyncio.gather(
        *(store.put("film", bytes([n]) * 6 * MIB, etag=first.etag) for n in (1, 2)), return_exceptions=True
    )
    (made,) = (each for each in outcomes if not isinstance(each, BaseException))
    (refused,) = (each for each in outcomes if isinstance(each, StreamGateError))
    assert refused.code == "precondition_failed" and made.etag != first.etag
    assert len(await store.read("film", 0, 10, etag=made.etag)) == 10
    completed = [each for each in proxy.asked("film", "POST") if "uploadId" in each.query]
    assert [each.headers.get("if-match") for each in completed] == [None, *[f'"{first.etag}"'] * 2]


@needs_weed
async def test_credentials_of_a_profile(
    seaweed: SeaweedFS, prefix: str, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the standard chain: the environment first, else the profile that it names; the region is the profile's, too."""
    (tmp_path / "credentials").write_text(
        f"[site]\naws_access_key_id = {seaweed.access_key}\naws_secret_access_key = {seaweed.secret_key}\n"
    )
    (tmp_path / "config").write_text("[profile site]\nregion = eu-near-1\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "site")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    store = await open_s3(f"s3://{prefix}", S3Settings(endpoint=proxy.endpoint, **QUICK))
    await store.put("film", b"bytes")
    assert await store.read("film") == b"bytes"
    await store.close()
    put, get = proxy.requests
    scope = f"Credential={seaweed.access_key}/"
    assert scope in put.headers["authorization"] and "/eu-near-1/s3/" in put.headers["authorization"]
    assert f"X-Amz-Credential={seaweed.access_key}%2F" in get.query and "%2Feu-near-1%2Fs3%2F" in get.query


@needs_weed
async def test_hedges_are_counted(prefix: str, proxy: FaultProxy) -> None:
    telemetry = Telemetry()
    given = {**QUICK, "hedge_after": 0.1, "stall_timeout": 5.0, "deadline": 10.0}
    store = await open_s3(f"s3://{prefix}", S3Settings(endpoint=proxy.endpoint, **given), telemetry)
    await store.put("film", b"0" * 1000)
    proxy.on(Fault(delay=3), "film", method="GET", times=1)
    assert len(await store.read("film", 0, 100)) == 100
    assert telemetry.value("origin_hedges") == 1
    assert telemetry.value("origin_requests", operation="get") == 2
    assert len(await store.read("film", 0, 100)) == 100
    assert telemetry.value("origin_hedges") == 1, "none where the first is quick"
    await store.close()


HERE = {"x-amz-bucket-region": "eu-far-1"}
MOVED = b"<Error><Code>PermanentRedirect</Code><Message>elsewhere</Message></Error>"


@needs_weed
@pytest.mark.parametrize(
    "answer",
    [
        Fault(status=301, headers=dict(HERE), body=MOVED),
        Fault(status=307, headers=dict(HERE), body=MOVED),
        Fault(status=400, headers=dict(HERE)),
        Fault(status=403, headers=dict(HERE), body=b"<Error><Code>AuthorizationHeaderMalformed</Code></Error>"),
    ],
    ids=lambda answer: str(answer.status),
)
async def test_a_bucket_that_is_elsewhere(prefix: str, proxy: FaultProxy, answer: Fault) -> None:
    """Whatever is asked for first, the region that the bucket tells is taken; nobody asks elsewhere any more."""

    def elsewhere(request: Request) -> bool:
        return "%2Feu-far-1%2F" not in request.query and "/eu-far-1/" not in request.headers.get("authorization", "")

    proxy.on(answer, when=elsewhere)
    calls: list[Callable[[S3Store], Awaitable[Any]]] = [
        lambda store: store.put("film", b"bytes"),
        lambda store: store.read("film", 0, 3),
        lambda store: store.stat("film"),
        lambda store: anext(store.list()),
    ]
    for call in calls:
        store = await open_s3(f"s3://{prefix}", S3Settings(endpoint=proxy.endpoint, **QUICK))
        await call(store)
        for _ in range(2):
            # The first time aioboto3 may have found its way without telling us.
            proxy.forget()
            assert await store.read("film", 0, 3) == b"byt"
            assert (await store.stat("film")).size == 5
        assert [request.status for request in proxy.requests] == [206, 200]
        await store.close()


@needs_weed
async def test_our_own_write_is_no_conflict(store: S3Store, proxy: FaultProxy) -> None:
    """The answer was lost, the object is there: the second attempt meets the work of the first."""
    proxy.on(Fault(reset=True, after_service=True), "lease", method="PUT", times=1)
    info = await store.put("lease", b"mine", only_new=True)
    assert await store.read("lease", etag=info.etag) == b"mine"
    assert len(proxy.asked("lease", "PUT")) == 2
    with fails("precondition_failed"):
        await store.put("lease", b"theirs", only_new=True)
    proxy.on(Fault(reset=True, after_service=True), "lease", method="PUT", times=1)
    newer = await store.put("lease", b"mine still", etag=info.etag)
    assert await store.read("lease", etag=newer.etag) == b"mine still"


async def pieces(count: int, piece: bytes) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield piece


def parts_left(seaweed: SeaweedFS, bucket: str) -> list[Any]:
    return list(seaweed.client.list_multipart_uploads(Bucket=bucket).get("Uploads", []))


@needs_weed
@pytest.mark.parametrize("only_new", [True, False])
async def test_parts_are_sent_again_and_never_left(
    open_store: OpenStore, proxy: FaultProxy, seaweed: SeaweedFS, shared_bucket: str, only_new: bool
) -> None:
    store = await open_store(part_size=5 * MIB, stall_timeout=5, deadline=10)
    piece = secrets.token_bytes(MIB)
    proxy.on(Fault(status=503), when=lambda request: "partNumber=2" in request.query, times=1)
    proxy.on(Fault(reset=True, after_service=True), when=lambda request: "partNumber=1" in request.query, times=1)
    proxy.on(Fault(reset=True, after_service=True), method="POST", when=lambda r: "uploadId" in r.query, times=1)
    info = await store.put("film", pieces(6, piece), only_new=only_new)
    assert info.size == 6 * MIB and info.etag.endswith("-2")
    assert await store.read("film", etag=info.etag) == piece * 6
    proxy.on(Fault(status=403), when=lambda request: "partNumber=2" in request.query)
    with fails("origin_denied"):
        await store.put("film", pieces(6, piece))
    assert await store.read("film", 0, 10, etag=info.etag) == piece[:10]
    assert parts_left(seaweed, shared_bucket) == []


@needs_weed
async def test_an_upload_that_is_cancelled(
    open_store: OpenStore, proxy: FaultProxy, seaweed: SeaweedFS, shared_bucket: str
) -> None:
    store = await open_store(part_size=5 * MIB, stall_timeout=30, deadline=60)
    proxy.on(Fault(delay=60), when=lambda request: "partNumber=2" in request.query)
    upload = asyncio.create_task(store.put("film", pieces(6, bytes(MIB))))
    async with asyncio.timeout(10):
        while not any("partNumber=2" in request.query for request in proxy.requests):
            await asyncio.sleep(0.01)
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert parts_left(seaweed, shared_bucket) == []
    with fails("source_not_found"):
        await store.stat("film")


class _Signer:
    signed = 0

    async def sign(self, key: str) -> str:
        self.signed += 1
        return f"http://host/{key}?{self.signed}"


async def test_addresses_are_signed_once_and_renewed_at_half_of_their_life(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, signer = asyncio.get_running_loop(), _Signer()
    urls = SignedUrls(signer, 100)  # type: ignore[arg-type]
    assert [str((await urls.get("a"))[0]) for _ in range(3)] == ["http://host/a?1"] * 3
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now + 49)
    assert await urls.get("a") == (urls._kept["a"][0], False)
    monkeypatch.setattr(loop, "time", lambda: now + 51)
    url, fresh = await urls.get("a")
    assert str(url) == "http://host/a?2" and fresh
    urls.forget("a")
    assert str((await urls.get("a"))[0]) == "http://host/a?3"
    for number in range(10_000):
        await urls.get(f"k{number}")
    assert len(urls._kept) == 10_000 and "a" not in urls._kept


def test_the_budget_of_retries() -> None:
    budget = RetryBudget(0.25)
    assert sum(budget.take() for _ in range(100)) == 20
    for _ in range(4):
        budget.earn()
    assert [budget.take(), budget.take()] == [True, False]


@needs_weed
async def test_what_is_counted(proxy: FaultProxy, prefix: str) -> None:
    telemetry = Telemetry()
    store = await open_s3(f"s3://{prefix}", S3Settings(endpoint=proxy.endpoint, **QUICK), telemetry)
    await store.put("film", b"0" * 1000)
    proxy.on(Fault(status=503), "film", method="GET", times=1)
    assert len(await store.read("film", 0, 100)) == 100
    await store.close()
    assert telemetry.value("origin_requests", operation="get") == 2
    assert telemetry.value("origin_received_bytes") == 100
    assert telemetry.value("origin_failures", code="origin_unavailable") == 1
    assert telemetry.value("origin_retries") == 1
    assert telemetry.value("origin_requests", operation="put_object") == 1


def test_proxies_are_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "near.example")
    choose = bucket._proxy.__wrapped__
    assert choose("https", "far.example") == "http://proxy.example:3128"
    assert choose("https", "near.example") is None
