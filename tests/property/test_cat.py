"""Tokens of any kind: whatever the bytes, there is an answer; a changed token is refused; claims are judged as a model has it."""

from __future__ import annotations

import io
import ipaddress
import math
import time
from dataclasses import replace
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgate.access.cbor import Tagged, encode
from streamgate.errors import StreamGateError
from streamgate.native import cat
from tests.token_factory import BASE, NOW, PATH, Request, payload, raw, signed, text, verdict, verifier

JUDGE = verifier()
CODES = {"accept", *cat.CODES[1:]}
UNREADABLE = {"token_malformed", "token_algorithm", "token_key", "token_signature", "token_too_long"}
GOOD = signed(
    {312: {3: {1: "/v/abc123/"}}, 313: ["GET"], 311: [Tagged(52, bytes((203, 0, 113, 7)))], 323: {0: 1, 1: 60}}
)

items = st.recursive(
    st.integers(-(2**64), 2**64 - 1) | st.floats() | st.binary(max_size=12) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.integers(-70000, 400) | st.text(max_size=3), inner, max_size=4)
        | st.builds(Tagged, st.sampled_from((52, 54, 61, 2**32)), inner)
    ),
    max_leaves=12,
)


@given(st.binary(max_size=1100) | st.text(max_size=300))
def test_anything_gets_an_answer(token: bytes | str) -> None:
    assert verdict(token, by=JUDGE) in UNREADABLE


@given(st.binary(max_size=800))
def test_any_bytes_get_an_answer(message: bytes) -> None:
    assert verdict(text(message), by=JUDGE) in UNREADABLE


@given(st.binary(max_size=400))
def test_any_payload_gets_an_answer(claims: bytes) -> None:
    assert verdict(payload(claims), by=JUDGE) in CODES


@given(st.dictionaries(st.sampled_from([*cat.CLAIMS.values(), -70000, 299, 0, -5]), items, max_size=6))
def test_any_claims_get_an_answer_and_are_read_as_cbor2_reads_them(claims: dict[int | str, Any]) -> None:
    token = signed(claims)
    answer = verdict(token, by=JUDGE)
    assert answer in CODES
    if answer in UNREADABLE:
        return
    theirs = cbor2.loads(raw(token))
    while isinstance(theirs, cbor2.CBORTag):
        theirs = theirs.value
    assert same(cat.decode(token)[3], loads(theirs[2]))


def loads(data: bytes) -> Any:
    """As cbor2 has it, with every tag as a pair."""
    decoder = cbor2.CBORDecoder(io.BytesIO(data), tag_hook=lambda _, tag: (tag.tag, tag.value))
    return decoder.decode()


def same(ours: Any, theirs: Any) -> bool:
    """Equal, NaN to itself."""
    if isinstance(ours, dict):
        return isinstance(theirs, dict) and ours.keys() == theirs.keys() and all(same(ours[k], theirs[k]) for k in ours)
    if isinstance(ours, list):
        return isinstance(theirs, list) and len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, tuple):
        return isinstance(theirs, tuple) and ours[0] == theirs[0] and same(ours[1], theirs[1])
    if isinstance(ours, float) and math.isnan(ours):
        return isinstance(theirs, float) and math.isnan(theirs)
    return bool(ours == theirs)


@given(st.data())
def test_a_changed_token_is_refused(data: st.DataObject) -> None:
    whole = bytearray(raw(GOOD))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(whole) - 1))
        what = data.draw(st.sampled_from(("set", "cut", "insert", "swap")))
        if what == "set":
            whole[at] = data.draw(st.integers(0, 255))
        elif what == "cut":
            del whole[at]
        elif what == "insert":
            whole.insert(at, data.draw(st.integers(0, 255)))
        else:
            other = data.draw(st.integers(0, len(whole) - 1))
            whole[at], whole[other] = whole[other], whole[at]
        if not whole:
            break
    answer = verdict(text(bytes(whole)), by=JUDGE)
    if answer == "accept":
        # What the MAC does not cover may be written in other ways: the same is said.
        assert cat.decode(text(bytes(whole)))[3] == cat.decode(GOOD)[3]
    else:
        assert answer in UNREADABLE


@given(st.integers(0, len(GOOD) - 1), st.characters())
def test_a_changed_character_is_refused(at: int, character: str) -> None:
    changed = GOOD[:at] + character + GOOD[at + 1 :]
    if changed != GOOD:
        assert verdict(changed, by=JUDGE) in UNREADABLE


# The model: each claim is yes (True), no (a code) or unknown (None).
Answer = bool | str | None

hosts = st.sampled_from(("cdn.example.com", "CDN.Example.com:8443", "other.example.org", "", "[2001:db8::1]:443"))
paths = st.sampled_from((PATH, "/v/abc123/main.mpd", "/v/abc1234/main.mpd", "/v/other/0.m4s"))
pieces = st.sampled_from(
    ("", "/", "/v/abc", "/v/abc123/", "/v/abc123", "7.m4s", ".m4s", PATH, "https", "cdn.example.com", ".com", "CDN")
)
matchers = st.dictionaries(st.sampled_from((0, 1, 2)), pieces, min_size=1, max_size=3)
unknown_matchers = st.sampled_from(({3: "abc"}, {4: ["x"]}, {-1: b"x"}, {9: 1}))
parts = st.dictionaries(st.sampled_from((0, 1, 3, 5)), matchers | unknown_matchers, max_size=2)
unknown_parts = st.dictionaries(st.sampled_from((2, 4, 6, 7, 8, 42)), matchers, max_size=1)
networks = st.builds(
    ipaddress.ip_network,
    st.sampled_from(("203.0.113.7", "203.0.113.0/25", "192.0.2.0/24", "0.0.0.0/0", "2001:db8::/32", "::/0")),
)
addresses = st.sampled_from(("203.0.113.7", "203.0.113.200", "2001:db8::5", "::ffff:203.0.113.7"))


def tagged(network: ipaddress.IPv4Network | ipaddress.IPv6Network, short: bool) -> Tagged:
    packed = network.network_address.packed
    tag = 52 if network.version == 4 else 54
    if network.prefixlen == network.max_prefixlen:
        return Tagged(tag, packed)
    return Tagged(tag, [network.prefixlen, packed.rstrip(b"\0") if short else packed])


@settings(max_examples=400)
@given(
    request=st.builds(
        Request,
        method=st.sampled_from(("GET", "HEAD", "get")),
        scheme=st.sampled_from(("http", "https")),
        host=hosts,
        path=paths,
        address=addresses.map(lambda address: ipaddress.ip_address(address).packed),
        now=st.integers(NOW - 100, NOW + 100),
    ),
    ends=st.integers(NOW - 150, NOW + 150) | st.floats(NOW - 150, NOW + 150),
    starts=st.none() | st.integers(NOW - 150, NOW + 150) | st.floats(NOW - 150, NOW + 150),
    methods=st.none() | st.lists(st.sampled_from(("GET", "HEAD", "POST")), max_size=2),
    uri=st.none() | st.builds(lambda known, others: {**known, **others}, parts, unknown_parts),
    nets=st.none() | st.lists(networks | st.integers(1, 2**32), max_size=3),
    short=st.booleans(),
    other=st.none() | st.sampled_from((316, 315, 299, 41, 308)),
)
def test_claims_are_judged_as_a_model_has_it(
    request: Request,
    ends: float,
    starts: float | None,
    methods: list[str] | None,
    uri: dict[int, dict[int, Any]] | None,
    nets: list[Any] | None,
    short: bool,
    other: int | None,
) -> None:
    claims: dict[int | str, Any] = {4: ends}
    answers: list[Answer] = [request.now < ends + 30 or "token_expired"]
    if starts is not None:
        claims[5] = starts
        answers.append(request.now >= starts - 60 or "token_not_yet_valid")
    if methods is not None:
        claims[313] = methods
        answers.append(request.method in methods or "token_method")
    if uri:
        claims[312] = uri
        answers.append(uri_model(uri, request))
    if nets is not None:
        claims[311] = [net if isinstance(net, int) else tagged(net, short) for net in nets]
        answers.append(network_model(nets, request))
    if other is not None:
        claims[other] = {316: ["DE"], 315: {"x": {0: "y"}}, 299: 1, 41: [{4: ends}], 308: 1}[other]
        answers.append(None)
    refusals = [answer for answer in answers if isinstance(answer, str)]
    expected = refusals[0] if refusals else "token_unsupported" if None in answers else "accept"
    assert verdict(signed(claims), request, JUDGE) == expected


def uri_model(uri: dict[int, dict[int, Any]], request: Request) -> Answer:
    host = request.host.lower()
    if not host.endswith("]"):
        host = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    subjects = {0: request.scheme, 1: host, 3: request.path, 5: request.path.rpartition("/")[0]}
    tests: dict[int, Any] = {0: str.__eq__, 1: str.startswith, 2: str.endswith}
    answers: list[Answer] = []
    for part, matchers in uri.items():
        for how, wanted in matchers.items():
            if part not in subjects or how not in tests:
                answers.append(None)
            else:
                wanted = wanted.lower() if part < 2 else wanted
                answers.append(bool(tests[how](subjects[part], wanted)) or "token_path")
    return "token_path" if "token_path" in answers else None if None in answers else True


def network_model(nets: list[Any], request: Request) -> Answer:
    address = ipaddress.ip_address(request.address)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if any(not isinstance(net, int) and net.version == address.version and address in net for net in nets):
        return True
    return None if any(isinstance(net, int) for net in nets) else "token_network"


@given(st.sampled_from(sorted(cat.CLAIMS.values())), items)
def test_a_claim_of_any_value_opens_nothing_that_it_does_not_say(key: int, value: Any) -> None:
    """Beside another token's claims a further claim takes away, never gives."""
    refused = replace(Request(), path="/v/other/main.mpd")
    token = signed({312: {3: {1: "/v/abc123/"}}, key: value}) if key != 312 else signed({313: [], 312: value})
    assert verdict(token, refused, JUDGE) != "accept"


@pytest.mark.parametrize("size", [1024, 768, 700])
def test_the_largest_inputs_take_no_time(size: int) -> None:
    """What costs most: maps of many keys, each compared to all before it, inside each other."""
    keys = b"\xb8\x40" + b"".join(encode(-70000 - n) + b"\x00" for n in range(64))
    message = (b"\xd8\x3d\xd1\x84\x40" + keys)[: size * 3 // 4]
    began = time.process_time()
    for _ in range(200):
        with pytest.raises(StreamGateError):
            JUDGE.read(text(message))
    assert (time.process_time() - began) / 200 < 0.001


def test_the_base_is_accepted() -> None:
    assert verdict(signed(BASE), by=JUDGE) == verdict(GOOD, by=JUDGE) == "accept"
