"""Which client a request is from, by proxies that are believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.proxies import Proxies, packed
from streamgate.errors import StreamGateError

PROXIES = Proxies(["10.0.0.0/8", "2001:db8:ffff::/48"])
PEER = packed("10.0.0.1")


def client(*, forwarded: list[str] | None = None, x: list[str] | None = None, peer: bytes = PEER) -> bytes:
    return PROXIES.client(peer, forwarded or [], x or [])


def test_a_stranger_is_not_believed() -> None:
    assert client(x=["1.2.3.4"], peer=packed("192.0.2.1")) == packed("192.0.2.1")


def test_nobody_is_believed_by_default() -> None:
    nobody = Proxies([])
    assert not nobody.trusts(PEER)
    assert not nobody.trusts(b"")
    assert nobody.client(PEER, [], ["1.2.3.4"]) == PEER


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], "10.0.0.1"),
        (["192.0.2.7"], "192.0.2.7"),
        (["203.0.113.9, 192.0.2.7"], "192.0.2.7"),
        (["203.0.113.9, 192.0.2.7, 10.9.9.9"], "192.0.2.7"),
        (["203.0.113.9", "192.0.2.7", "10.9.9.9"], "192.0.2.7"),
        (["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        (["192.0.2.7, nonsense"], "10.0.0.1"),
        (["2001:db8::5"], "2001:db8::5"),
        (["[2001:db8::5]:443"], "2001:db8::5"),
        (["192.0.2.7:5000"], "192.0.2.7"),
        (["::ffff:192.0.2.7"], "192.0.2.7"),
        ([","], "10.0.0.1"),
    ],
)
def test_x_forwarded_for(fields: list[str], expected: str) -> None:
    assert client(x=fields) == packed(expected)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["for=192.0.2.60;proto=http;by=203.0.113.43"], "192.0.2.60"),
        (["for=203.0.113.9, for=192.0.2.43"], "192.0.2.43"),
        (["for=203.0.113.9", "for=192.0.2.43, for=10.0.0.9"], "192.0.2.43"),
        (['For="[2001:db8:cafe::17]:4711"'], "2001:db8:cafe::17"),
        (['for="192.0.2.1:80"'], "192.0.2.1"),
        (["proto=https;for=192.0.2.1"], "192.0.2.1"),
        (["for=192.0.2.1, for=unknown"], "10.0.0.1"),
        (["for=192.0.2.1, for=_hidden"], "10.0.0.1"),
        (["for=192.0.2.1, proto=https"], "10.0.0.1"),
        (["for=192.0.2.1 for=192.0.2.2"], "10.0.0.1"),
        (['for="192.0.2.1'], "10.0.0.1"),
    ],
)
def test_forwarded(fields: list[str], expected: str) -> None:
    assert client(forwarded=fields, x=["9.9.9.9"]) == packed(expected)


def test_a_unix_socket_is_trusted_where_any_proxy_is() -> None:
    assert client(x=["192.0.2.7"], peer=b"") == packed("192.0.2.7")


def test_an_address_of_ipv4_in_ipv6_is_trusted_as_what_it_is() -> None:
    assert PROXIES.trusts(b"\0" * 10 + b"\xff\xff" + PEER)


def test_a_network_that_is_none_is_a_wrong_setting() -> None:
    with pytest.raises(StreamGateError) as raised:
        Proxies(["10.0.0.1/8"])
    assert raised.value.code == "config_invalid"


@given(st.lists(st.text(max_size=60), max_size=4), st.lists(st.text(max_size=60), max_size=4))
def test_any_text_is_an_address_or_ends_the_chain(forwarded: list[str], x: list[str]) -> None:
    assert len(client(forwarded=forwarded, x=x)) in (4, 16)


@given(st.lists(st.sampled_from(["192.0.2.1", "10.0.0.1", "unknown", "2001:db8::1"]), min_size=1, max_size=50))
def test_what_stands_before_an_untrusted_address_changes_nothing(chain: list[str]) -> None:
    known = client(x=[", ".join([*chain, "198.51.100.1", "10.0.0.2"])])
    assert known == packed("198.51.100.1")
