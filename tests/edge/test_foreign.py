"""Tokens of others at an edge: looked at in a thread, once each, for a network only so often; and what outlives a restart."""

from __future__ import annotations

import asyncio
import mmap
import threading
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import pytest

from edge.foreign import Foreign, network
from edge.keyring import Keyring
from edge.revocations import Revocations
from streamgate.access.foreign import Checker
from streamgate.access.keys import AnyKey, Defaults
from streamgate.errors import StreamGateError
from streamgate.native.cat import Verifier
from streamgate.native.limiter import Limiter, room
from streamgate.storage import keys
from streamgate.storage.kv.events import Event
from streamgate.storage.sights import Sights
from tests.edge.gated import assets
from tests.edge.harness import Folder, running
from tests.signers import ORDER, Issuer, es256, ps256
from tests.token_factory import KEY, NOW, SESSION, signed

HOME = bytes((203, 0, 113, 7))
T = TypeVar("T")


class Threads:
    """One thread, and what it was given to do."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1)
        self.names: list[str] = []
        self.go = threading.Event()
        self.go.set()

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        def noted() -> T:
            self.names.append(threading.current_thread().name)
            assert self.go.wait(10)
            return work(*arguments)

        return await asyncio.get_running_loop().run_in_executor(self._executor, noted)


class Setting:
    """A verifier and who looks at signatures for it, at a time of one's own."""

    def __init__(self, data: Path, *known: AnyKey, rate: float = 50.0) -> None:
        self.now = float(NOW)
        self.verifier = Verifier([key.verifying() for key in known])
        self.threads, self.sights = Threads(), Sights(data / "foreign.sqlite", 1000)
        memory = mmap.mmap(-1, -(-room(64) // mmap.PAGESIZE) * mmap.PAGESIZE)
        limiter = Limiter(memoryview(memory)[: room(64)], rate, max(1, int(rate)))
        self.foreign = Foreign(self.verifier, self.threads, limiter, self.sights, 3600, lambda: self.now)
        self.foreign.configure(known)

    async def verdict(self, token: str, address: bytes = HOME) -> str:
        try:
            await self.foreign.read(token, address)
        except StreamGateError as error:
            return error.code
        return "accept"

    @property
    def looked(self) -> int:
        return len(self.threads.names)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Setting]:
    made = Setting(tmp_path, KEY, es256().key, ps256().key)
    yield made
    made.sights.close()


@pytest.mark.parametrize("issuer", [es256(), ps256()], ids=["ES256", "PS256"])
async def test_a_signature_is_looked_at_once_and_not_by_the_loop(here: Setting, issuer: Issuer) -> None:
    token = issuer.token()
    assert [await here.verdict(token) for _ in range(3)] == ["accept"] * 3
    assert here.looked == 1 and threading.current_thread().name not in here.threads.names


async def test_ours_are_not_looked_at(here: Setting) -> None:
    assert await here.verdict(signed({})) == "accept"
    assert await here.verdict(signed({})[:-1] + "B") in ("token_signature", "token_malformed")
    assert await here.verdict("x") == "token_malformed"
    assert here.looked == 0


async def test_requests_that_come_at_once_share_one_look(here: Setting) -> None:
    token = es256().token()
    here.threads.go.clear()
    asked = [asyncio.ensure_future(here.verdict(token)) for _ in range(8)]
    await asyncio.sleep(0)
    asked[0].cancel()
    await asyncio.sleep(0)
    here.threads.go.set()
    assert await asyncio.gather(*asked[1:]) == ["accept"] * 7
    assert here.looked == 1


async def test_a_wrong_signature_is_never_remembered(here: Setting) -> None:
    stranger = es256(b"stranger")
    forged = Issuer("ES256", stranger.private, b"shop-1").token()
    assert [await here.verdict(forged) for _ in range(2)] == ["token_signature"] * 2
    assert here.looked == 2
    assert await here.verdict(stranger.token()) == "token_key" and here.looked == 2


async def test_a_network_may_bring_only_so_many_that_were_never_seen(tmp_path: Path) -> None:
    here = Setting(tmp_path, es256().key, rate=5.0)
    made = [es256().token({7: bytes([number])}) for number in range(12)]
    told = [await here.verdict(token, bytes((203, 0, 113, number))) for number, token in enumerate(made)]
    assert told.count("accept") >= 5 and told[-1] == "rate_limited"
    assert here.looked == told.count("accept")
    # What was seen before is no matter of rates, and another network has a rate of its own.
    assert [await here.verdict(token) for token in made[:5]] == ["accept"] * 5
    assert await here.verdict(made[-1], bytes((198, 51, 100, 1))) == "accept"
    six = [bytes((0x20, 1, 0xD, 0xB8, 0, 1)) + bytes(9) + bytes([number]) for number in range(12)]
    told = [await here.verdict(es256().token({7: b"6" + bytes([n])}), each) for n, each in enumerate(six)]
    assert told[-1] == "rate_limited"
    here.sights.close()


@pytest.mark.parametrize(
    ("address", "expected"),
    [(HOME, HOME[:3]), (bytes(10) + b"\xff\xff" + HOME, HOME[:3]), (bytes(range(16)), bytes(range(6))), (b"", b"")],
)
def test_networks(address: bytes, expected: bytes) -> None:
    assert network(address) == expected


async def test_it_lives_an_hour_from_its_first_sight_in_any_process(here: Setting, tmp_path: Path) -> None:
    token = es256().token({4: NOW + 86_400})
    assert await here.verdict(token) == "accept"
    other = Setting(tmp_path, es256().key)  # another worker, or the same after a restart
    other.now = NOW + 1800
    assert await other.verdict(token) == "accept"
    assert other.verifier.read(token).deadline == here.verifier.read(token).deadline == NOW + 3600
    late = Setting(tmp_path, es256().key)
    late.now = NOW + 7200
    assert await late.verdict(token) == "accept"
    with pytest.raises(StreamGateError, match="token_expired"):
        late.verifier.check(late.verifier.read(token), path="/v/x/", now=NOW + 7200)
    for each in (other, late):
        each.sights.close()


async def test_where_first_sights_cannot_be_kept_nobody_new_gets_in(here: Setting, tmp_path: Path) -> None:
    seen, new = es256().token({7: b"1"}), es256().token({7: b"2"})
    assert await here.verdict(seen) == "accept"
    here.sights.close()
    for left in tmp_path.glob("foreign.sqlite*"):
        left.unlink()
    (tmp_path / "foreign.sqlite").write_bytes(b"no database" * 1000)
    assert await here.verdict(new) == "store_unavailable"
    assert await here.verdict(seen) == "accept", "which is remembered"
    (tmp_path / "foreign.sqlite").unlink()
    assert await here.verdict(new) == "accept"


async def test_a_key_that_changes_meanwhile(here: Setting) -> None:
    token, other = es256().token(), Issuer("ES256", es256(b"other").private)
    here.threads.go.clear()
    asked = asyncio.ensure_future(here.verdict(token))
    while not here.looked:
        await asyncio.sleep(0)
    here.verifier.configure([other.key.verifying()])
    here.foreign.configure([other.key])
    here.threads.go.set()
    assert await asked == "token_signature"
    assert here.looked == 2
    assert await here.verdict(other.token()) == "accept"


def test_sights_are_bounded(tmp_path: Path) -> None:
    sights = Sights(tmp_path / "deep/sights", 16)
    for number in range(16):
        assert sights.first(bytes([number]), NOW + number, NOW + 1000 + number) == NOW + number
    for now in (NOW + 99, NOW + 1030):
        with pytest.raises(StreamGateError, match="overloaded"):
            sights.first(b"new", now, NOW + 9999)
    assert sights.first(bytes([0]), NOW + 99, NOW + 1000) == NOW, "who is not over never gets young"
    assert sights.first(bytes([15]), NOW + 1, NOW + 1015) == NOW + 1, "a clock that went back"
    assert sights.first(b"new", NOW + 1062, NOW + 9999) == NOW + 1062, "who is over made room"
    assert sights.first(bytes([15]), NOW + 1063, NOW + 1015) == NOW + 15
    sights.close()


async def test_many_others_do_not_make_a_token_young(tmp_path: Path) -> None:
    here = Setting(tmp_path, es256().key)
    here.sights._most = 3
    token, *others = (es256().token({4: NOW + 86_400, 7: bytes([number])}) for number in range(4))
    assert await here.verdict(token) == "accept"
    here.now += 1800
    assert [await here.verdict(each) for each in others] == ["accept", "accept", "overloaded"]
    again = Setting(tmp_path, es256().key)
    again.now = NOW + 7200
    assert await again.verdict(token) == "accept"
    assert again.verifier.read(token).deadline == NOW + 3600
    for each in (here, again):
        each.sights.close()


def test_processes_agree_on_the_first(tmp_path: Path) -> None:
    ones = [Sights(tmp_path / "sights", 100) for _ in range(4)]
    start, found = threading.Barrier(4), dict[int, list[int]]()

    def look(which: int) -> None:
        start.wait()
        found[which] = [ones[which].first(bytes([number]), NOW + which, NOW + 999) for number in range(20)]

    threads = [threading.Thread(target=look, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = [ones[0].first(bytes([number]), NOW + 9, NOW + 999) for number in range(20)]
    # Whose clock is behind takes a token for older, never for younger.
    assert found == {which: [min(first, NOW + which) for first in again] for which in range(4)}
    assert all(NOW <= first <= NOW + 3 for first in again)
    for one in ones:
        one.close()


async def test_a_viewer_with_such_a_token_is_served_and_revoked(tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    assets(library)
    issuer = es256()
    verifier = Verifier([issuer.key.verifying()])
    token = issuer.token({4: int(time.time()) + 600, 312: {3: {1: "/v/gated/"}}, 7: SESSION})
    forged = Issuer("ES256", es256(b"stranger").private, b"shop-1").token({4: int(time.time()) + 600})
    async with running(Folder(library), verifier=verifier) as edge:
        assert edge.node.gate.foreign is not None
        before = await edge.ask(f"/t/{token}/v/gated/main.m3u8")
        assert (before.status, before.json()["code"]) == (401, "token_signature"), "its key is not configured there yet"
        edge.node.gate.foreign.configure([issuer.key])
        for _ in range(2):
            assert (await edge.ask(f"/t/{token}/v/gated/main.m3u8")).status == 200
        assert (await edge.ask(f"/t/{token}/v/other/main.m3u8")).status == 403
        assert (await edge.ask(f"/t/{forged}/v/gated/main.m3u8")).json()["code"] == "token_signature"
        verifier.revoke_token(sha256(token.encode()).digest(), int(time.time()) + 600)
        assert (await edge.ask(f"/t/{token}/v/gated/main.m3u8")).json()["code"] == "token_revoked"


def test_a_checker_may_be_used_by_any_thread() -> None:
    issuer = es256()
    by = Verifier([issuer.key.verifying()])
    _, covered, signature, _, _ = by.covered(issuer.token())
    checker = Checker(issuer.private.public_key())
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: checker.right(covered, signature), range(100)))


class Site:
    """What nodes share, in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}
        self.away = False

    async def get(self, key: str) -> bytes | None:
        return self.rows.get(key)

    async def put_new(self, key: str, value: bytes, ttl: float | None = None) -> bool:
        if self.away:
            raise StreamGateError("store_unavailable")
        assert ttl is not None and 0 < ttl < 2**30
        return self.rows.setdefault(key, value) is value


async def test_first_sights_of_a_site(tmp_path: Path) -> None:
    one, other, site = Setting(tmp_path / "one", es256().key), Setting(tmp_path / "other", es256().key), Site()
    one.foreign.site = other.foreign.site = site
    token, endless = es256().token({4: NOW + 86_400}), es256().token({4: NOW + 2**40})
    assert await one.verdict(token) == await one.verdict(endless) == "accept"
    other.now += 1800
    assert await other.verdict(token) == "accept"
    assert other.verifier.read(token).deadline == NOW + 3600
    site.away = True
    assert await other.verdict(es256().token({7: b"new"})) == "store_unavailable"
    assert await other.verdict(token) == "accept", "which is remembered"
    for each in (one, other):
        each.sights.close()


@pytest.mark.parametrize("order", ["seen, revoked", "revoked, seen"])
async def test_revoked_as_another_process_saw_it(tmp_path: Path, order: str) -> None:
    """One saw a token as its issuer wrote it, and the other as somebody else did: to revoke the first revokes both."""
    payload: dict[int | str, Any] = {4: NOW + 600, 7: b"7" * 16}
    signed = es256().token(payload)
    _, covered, signature, _, _ = Verifier([es256().key.verifying()]).covered(signed)
    written = rewritten(signed, signature)
    one, other = Setting(tmp_path, es256().key), Setting(tmp_path, es256().key)
    revocations = Revocations(lambda: NOW)
    revocations.attach(other.verifier)
    other.foreign.revoked = lambda digest: revocations.until("revoke.token", digest)
    revocations.on_token = other.foreign.revoke
    assert await one.verdict(signed) == "accept"
    event = Event(1, "revoke.token", sha256(signed.encode()).digest(), NOW + 600)
    if order == "revoked, seen":
        revocations.apply(event)
        assert await other.verdict(written) == "token_revoked"
    else:
        assert await other.verdict(written) == "accept"
        # The file cannot be read for a moment.
        other.sights.close()
        revocations.apply(event)
        async with asyncio.timeout(5):
            while await other.verdict(written) != "token_revoked":
                await asyncio.sleep(0.01)
    assert await other.verdict(es256().token({7: b"8" * 16})) == "accept"
    for each in (one, other):
        each.sights.close()


def rewritten(token: str, signature: bytes) -> str:
    """The same token with the other signature that ECDSA has for it."""
    raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    other = signature[:32] + (ORDER - int.from_bytes(signature[32:])).to_bytes(32)
    assert raw.endswith(signature)
    return urlsafe_b64encode(raw.removesuffix(signature) + other).rstrip(b"=").decode()


async def test_a_change_of_keys_keeps_what_is_known_of_others(tmp_path: Path) -> None:
    """Nobody's token is looked at anew but those by the key that was changed."""
    here, data = Setting(tmp_path / "data", es256().key, ps256(b"shop-2").key), tmp_path / "keys"
    data.mkdir(mode=0o700)

    def keep(name: str, issuer: Issuer) -> None:
        file = data / f"{name}.toml"
        file.touch(0o600)
        file.write_text(issuer.file.replace('require = ["exp"]', 'require = ["exp"]\naudience = ["site-eu-1"]'))

    keep("one", es256())
    keep("two", ps256(b"shop-2"))
    keyring = Keyring(keys.Folder(data, Defaults("streamgate", ("site-eu-1",))), here.verifier, 0.0, here.foreign)
    await keyring.look()
    kept, gone = es256().token(), ps256(b"shop-2").token()
    assert [await here.verdict(each) for each in (kept, gone)] == ["accept"] * 2
    looked = here.looked
    keep("two", Issuer("PS256", ps256(b"another").private, b"shop-2"))
    await keyring.look()
    assert await here.verdict(kept) == "accept" and here.looked == looked
    assert await here.verdict(gone) == "token_signature" and here.looked == looked + 1
    here.sights.close()
