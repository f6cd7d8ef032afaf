"""Grants and sessions: their rows, and when a session may go on."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.access.sessions import (
    CARRIAGES,
    GRACE_S,
    Carriage,
    Grant,
    Session,
    by_time,
    fresh_id,
    judge,
    network_of,
    opaque,
)
from streamgate.errors import StreamGateError

GRANT = Grant(b"g" * 16, "ada", ("film", "other"), "allow", 1000, 2000, ("e",))
SESSION = Session(b"s" * 16, GRANT.id, 1, "film", "ada", 1000, 2000, "path", ("e",), ("203.0.113.0/24",), "none", 3, 2)
texts = st.text(max_size=40)


@given(texts, st.lists(texts, max_size=3), st.integers(0, 2**40), st.sampled_from(CARRIAGES))
def test_rows_come_back(text: str, texts: list[str], number: int, carriage: Carriage) -> None:
    grant = replace(GRANT, account=text, entitlements=tuple(texts), cap=number)
    assert Grant.decode(grant.encode()) == grant
    session = replace(SESSION, account=text, entitlements=tuple(texts), start=number, carriage=carriage)
    assert Session.decode(session.encode()) == session


@given(st.lists(st.tuples(st.binary(min_size=16, max_size=16), st.integers(0, 2**44)), min_size=2, max_size=5))
def test_ids_are_random_at_first_and_rows_lie_in_the_order_of_time(told: list[tuple[bytes, int]]) -> None:
    ids = [fresh_id(random, ms / 1000) for random, ms in told]
    assert all(len(id) == 16 and id[:10] == random[:10] for id, (random, _) in zip(ids, told, strict=True))
    assert len({by_time(id) for id in ids}) == len(set(ids))
    times = [int(ms / 1000 * 1000) for _, ms in told]
    for (id, time), (other, later) in zip(
        zip(ids, times, strict=True), list(zip(ids, times, strict=True))[1:], strict=False
    ):
        assert time >= later or by_time(id) < by_time(other)


@pytest.mark.parametrize("kind", [Grant, Session])
def test_rows_that_are_none(kind: type[Grant] | type[Session]) -> None:
    row = json.loads((GRANT if kind is Grant else SESSION).encode())
    wrong = [
        {},
        {**row, "more": 1},
        {**row, "id": "zz"},
        {**row, "id": 5},
        {**row, "epoch": "1"},
        {**row, "state": "x"},
    ]
    for each in (b"", b"[]", b"{", *(json.dumps(table).encode() for table in wrong)):
        with pytest.raises(ValueError):
            kind.decode(each)


def test_a_grant_that_ended_raises_its_epoch() -> None:
    live = GRANT.live(("e", "f"))
    assert (live.state, live.epoch, live.entitlements) == ("live", 1, ("e", "f"))
    assert (live.ended().state, live.ended().epoch) == ("ended", 2)
    # What was minted meanwhile is born dead.
    with pytest.raises(StreamGateError, match="session_ended"):
        judge(SESSION, live.ended().epoch, "film", None, 1500)


@pytest.mark.parametrize(
    ("change", "epoch", "asset", "network", "now", "code"),
    [
        ({}, 1, "film", "198.51.100.0/24", 1500, ""),
        ({}, 1, "film", "", 2000 + GRACE_S - 1, ""),
        ({}, 1, "film", "", 2000 + GRACE_S, "session_ended"),
        ({"state": "ended"}, 1, "film", "", 1500, "session_ended"),
        ({}, None, "film", "", 1500, "session_ended"),
        ({}, 2, "film", "", 1500, "session_ended"),
        ({}, 1, "other", "", 1500, "session_asset"),
        ({"binding": "network"}, 1, "film", "203.0.113.0/24", 1500, ""),
        ({"binding": "network"}, 1, "film", "198.51.100.0/24", 1500, "session_network"),
        ({"binding": "network"}, 1, "film", "", 1500, "session_network"),
        ({"binding": "network"}, 1, "film", None, 1500, ""),
        ({"binding": "asn"}, 1, "film", "198.51.100.0/24", 1500, "session_network"),
        ({"binding": "asn", "networks": ("AS5",)}, 1, "film", "AS5", 1500, ""),
        ({"binding": "asn", "networks": ("AS5",)}, 1, "film", "AS5:6", 1500, ""),
        ({"binding": "asn", "networks": ("AS5:6",)}, 1, "film", "AS5", 1500, ""),
        ({"binding": "asn", "networks": ("AS5",)}, 1, "film", "AS55", 1500, "session_network"),
        ({"binding": "asn", "networks": ("AS5",)}, 1, "film", "", 1500, "session_network"),
        ({"binding": "asn", "networks": ()}, 1, "film", "", 1500, "session_network"),
    ],
)
def test_judging(
    change: dict[str, str], epoch: int | None, asset: str, network: str | None, now: float, code: str
) -> None:
    session = replace(SESSION, **change)  # type: ignore[arg-type]
    if not code:
        judge(session, epoch, asset, network, now)
        return
    with pytest.raises(StreamGateError) as caught:
        judge(session, epoch, asset, network, now)
    assert caught.value.code == code


def test_bound_to_one_network_of_each_family() -> None:
    four, six = SESSION.networks[0], "2001:db8:1::/48"
    both = SESSION.bound_to(six)
    assert both.networks == (four, six)
    assert both.bound_to("198.51.100.0/24").networks == (six, "198.51.100.0/24")
    assert both.bound_to(six).networks == (four, six)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.77", "203.0.113.0/24"),
        ("::ffff:203.0.113.77", "203.0.113.0/24"),
        ("2001:db8:1:2::5", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("", ""),
        ("video.example", ""),
    ],
)
def test_networks(address: str, network: str) -> None:
    assert network_of(address) == network


def test_opaque_names() -> None:
    made = opaque(b"k" * 32, "account", "ada")
    assert len(made) == 32 and bytes.fromhex(made)
    others = {
        opaque(b"k" * 32, "browser", "ada"),
        opaque(b"j" * 32, "account", "ada"),
        opaque(b"k" * 32, "account", "bob"),
    }
    assert made not in others and len(others) == 3
