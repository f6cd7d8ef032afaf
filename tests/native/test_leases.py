"""The table of leases, and the one look that the hot path takes at a connection's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

import pytest

from streamgate.access import tokens
from streamgate.access.keys import SharedKey
from streamgate.native.cat import Key, Token, Verifier
from streamgate.native.leases import Lease, Leases, network
from tests.native.hot import Node, answer, get, stored, until

OURS = SharedKey(b"k", bytes(range(32)), "us", ("here",), ("iss", "exp", "cti", "aud"))
HERE = bytes([127, 0, 0, 1])
NET = bytes([127, 0, 0])
SESSION = bytes(range(16))


def minted(session: bytes = SESSION, asset: str = "film", key: SharedKey = OURS) -> str:
    return tokens.mint(key, asset=asset, session=session, expires=int(time.time()) + 1000)


@pytest.fixture(scope="module")
def verifier() -> Verifier:
    return Verifier([OURS.verifying()])


@pytest.fixture(scope="module")
def token(verifier: Verifier) -> Token:
    return verifier.read(minted())


def test_networks() -> None:
    assert network(bytes([203, 0, 113, 7])) == bytes([203, 0, 113])
    assert network(bytes(range(16))) == bytes(range(6))
    assert network(b"") == b""
    with pytest.raises(ValueError, match="4 or 16"):
        network(b"abc")


def test_what_is_held(token: Token) -> None:
    table = Leases()
    assert table.hold(token, "film", HERE, 0) is None
    lease = table.grant(SESSION, NET, 100, asset="film")
    assert (lease.session, lease.network, lease.asset, len(table)) == (SESSION, NET, "film", 1)
    assert table.hold(token, "film", HERE, 99) is lease
    assert table.hold(token, "film", bytes([127, 0, 0, 99]), 99) is lease
    assert table.hold(token, "film", bytes([127, 0, 1, 1]), 99) is None, "another network"
    assert table.hold(token, "film", bytes(16), 99) is None
    assert table.hold(token, "film", b"", 99) is None
    assert table.hold(token, "films", HERE, 99) is None, "another asset"
    assert table.hold(token, "film", HERE, 100) is None, "it has ended by itself"


def test_extended_in_place(token: Token) -> None:
    table = Leases()
    names = (("revoke.grant", b"g"),)
    lease = table.grant(SESSION, NET, 100, asset="film", names=names)
    assert table.grant(SESSION, NET, 200, asset="film", names=names) is lease
    assert table.hold(token, "film", HERE, 150) is lease
    table.end(lease)
    assert (lease.until, len(table), table.get(SESSION, NET)) == (0, 0, None)
    again = table.grant(SESSION, NET, 300, asset="film", names=names)
    assert again is not lease
    assert lease.until == 0, "what ended stays so, whoever remembers it"
    other = table.grant(SESSION, NET, 300, asset="other", names=names)
    assert (other is again, again.until) == (False, 0)


def test_ended_by_name() -> None:
    table = Leases()
    made = [
        table.grant(
            bytes([n]) * 16, NET, 100, asset="film", names=(("revoke.grant", bytes([n % 3])), ("revoke.asset", b"film"))
        )
        for n in range(9)
    ]
    assert table.end_named({("revoke.grant", b"\1"), ("revoke.account", b"\2")}) == 3
    assert [lease.until for lease in made] == [100, 0, 100] * 3
    assert table.end_named({("revoke.asset", b"other")}) == 0
    assert table.end_named({("revoke.asset", b"film")}) == 6
    assert len(table) == 0


def test_the_table_is_bounded() -> None:
    table = Leases(3)
    made = [table.grant(bytes([n]) * 16, NET, 100, asset="film") for n in range(3)]
    assert table.grant(bytes(16), NET, 101, asset="film") is made[0], "extended last, so it leaves last"
    table.grant(bytes([9]) * 16, NET, 100, asset="film")
    assert (len(table), [lease.until for lease in made]) == (3, [101, 0, 100])
    with pytest.raises(ValueError, match="room"):
        Leases(0)


def test_who_was_used(token: Token) -> None:
    table = Leases()
    lease, other = table.grant(SESSION, NET, 100, asset="film"), table.grant(bytes(16), b"", 50, asset="film")
    assert table.used(0) == [lease, other], "what was granted was asked for"
    assert table.used(0) == []
    assert table.hold(token, "film", HERE, 10) is lease
    assert table.used(60) == [lease]
    assert (other.until, len(table)) == (0, 1), "what has ended is forgotten"


def test_tokens_that_need_none(token: Token) -> None:
    table = Leases(required=False)
    assert table.hold(token, "film", HERE, 0) is table.free
    assert not table.required
    with pytest.raises(TypeError):
        Lease()


def test_foreign_keys_have_no_sessions() -> None:
    secret = bytes(32)
    key = Key(b"f", secret, issuer="them", audience=("here",), leased=False)
    assert not key.leased
    assert Key(b"o", secret, issuer="us").leased


async def asked(port: int, *requests: bytes) -> list[bool]:
    """Which of the requests on one connection were answered natively."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = []
    for request in requests:
        writer.write(request)
        found.append((await answer(reader))[2] == b"native")
    writer.close()
    return found


async def test_the_hot_path(verifier: Verifier) -> None:
    """Without a lease the handler answers, and so it does after its end; one number decides while it is remembered."""
    table = Leases()
    node = Node(verifier=verifier, leases=table, open_assets=set())
    node.put("/v/film/a", b"native", gated=True)
    request = get(f"/t/{minted()}/v/film/a")
    async with node.listening() as port:
        assert await asked(port, request) == [False]
        lease = table.grant(SESSION, NET, time.monotonic_ns() + 10**12, asset="film")
        table.used(0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def native() -> bool:
            writer.write(request)
            return (await answer(reader))[2] == b"native"

        assert [await native(), await native()] == [True, True]
        assert lease.used
        assert node.count("native_tokens_remembered") == 1
        lease.until = time.monotonic_ns() - 1
        assert not await native(), "it has ended by itself"
        table.grant(SESSION, NET, time.monotonic_ns() + 10**12, asset="film")
        assert await native(), "and was extended"
        table.end(lease)
        assert not await native(), "it was ended"
        table.grant(SESSION, NET, time.monotonic_ns() + 10**12, asset="film")
        assert await native(), "another one is found by the connection that remembers the first"
        writer.close()


async def test_the_hot_path_looks_at_the_network_and_the_asset(verifier: Verifier) -> None:
    table, ends = Leases(), time.monotonic_ns() + 10**12
    other = os.urandom(16)
    table.grant(SESSION, bytes([10, 0, 0]), ends, asset="film")
    table.grant(other, NET, ends, asset="another")
    node = Node(
        verifier=verifier,
        leases=table,
        open_assets=set(),
        trusts=lambda peer: peer == HERE,
        client=lambda peer, told: (bytes(map(int, told.split("."))) if told else peer, False),
    )
    node.put("/v/film/a", b"native", gated=True)
    path = f"/t/{minted()}/v/film/a"
    from_10, from_11 = get(path, "X-Forwarded-For: 10.0.0.9"), get(path, "X-Forwarded-For: 11.0.0.9")
    async with node.listening() as port:
        assert await asked(port, from_10, from_11, from_10, get(path)) == [True, False, True, False]
        table.grant(SESSION, NET, ends, asset="film")
        assert await asked(port, get(path)) == [True]
        assert await asked(port, get(f"/t/{minted(other)}/v/film/a")) == [False], (
            "the session's lease is another asset's"
        )


@pytest.mark.parametrize("how", ["lease", "session", "key"])
async def test_an_answer_under_way_is_cut(how: str) -> None:
    """Who reads slowly gets nothing more, either; while it goes on, it counts as a use."""
    verifier, table = Verifier([OURS.verifying()]), Leases()
    node = Node(verifier=verifier, leases=table, open_assets=set(), head_timeout=0.2)
    body = bytes(16 << 20)
    assert node.cache.put(b"/v/film/a", stored(body, gated=True), len(body))
    lease = table.grant(SESSION, NET, time.monotonic_ns() + 10**12, asset="film")
    async with node.listening() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
        writer.write(get(f"/t/{minted()}/v/film/a"))
        await reader.readexactly(1000)
        lease.used = False
        verifier.configure([OURS.verifying()])
        await until(lambda: lease.used)
        assert len(node.factory.connections) == 1, "another key beside its own changes nothing"
        if how == "lease":
            table.end(lease)
        elif how == "session":
            verifier.revoke_session(SESSION, 2**62)
        else:
            verifier.configure([])
        await until(lambda: not node.factory.connections)
        with contextlib.suppress(ConnectionResetError):
            assert 0 < len(await reader.read()) < len(body) - 1000
        assert node.count("requests_aborted/timeout") == 1
        writer.close()
