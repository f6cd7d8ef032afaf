"""Verifying tokens: every published vector, what remembers a token, revocation, and what each claim's form may be."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest

from streamgate.access.cbor import Tagged, encode
from streamgate.errors import CODES, StreamGateError
from streamgate.native import cat
from streamgate.native.cat import Key, Token, Verifier
from tests.token_factory import (
    BASE,
    KEY,
    NOW,
    PATH,
    SECRET,
    SESSION,
    VECTORS,
    Request,
    asked,
    check,
    payload,
    raw,
    signed,
    text,
    verdict,
    verifier,
)

# What the kernel does not evaluate, by name: it calls such a token unsupported (see tests/edge/test_conditions.py).
NOT_EVALUATED = ("path_sha256", "path_regex", "header_claim", "node_header", "or_", "nor_", "and_")


def code(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(StreamGateError) as caught:
        call(*arguments, **named)
    return caught.value.code


def test_there_are_as_many_vectors_as_were_published() -> None:
    assert len(VECTORS["vectors"]) == 117
    assert len({vector["name"] for vector in VECTORS["vectors"]}) == 117
    assert sum(vector["name"].startswith(NOT_EVALUATED) for vector in VECTORS["vectors"]) == 18


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_every_vector_gets_its_own_answer(vector: dict[str, Any]) -> None:
    expected = "token_unsupported" if vector["name"].startswith(NOT_EVALUATED) else vector["expect"]
    assert verdict(vector["token"], asked(vector)) == expected, vector["why"]


def test_every_code_is_declared_with_the_status_that_it_means() -> None:
    forbidden = {"token_method", "token_path", "token_network", "token_header", "token_condition", "token_unsupported"}
    for name in {*cat.CODES[1:], *(v["expect"] for v in VECTORS["vectors"]), "token_required"} - {"accept"}:
        assert CODES[name].status == (403 if name in forbidden else 401), name
    assert CODES["token_ambiguous"].status == CODES["path_malformed"].status == 400


def test_the_worked_example() -> None:
    token = text(
        bytes.fromhex(
            "d83dd18443a10105a104426b3157a3016a73747265616d67617465041a59682f0019013601"
            "582047a2050a3a7885cc25575bf85cf804c65d85f30f568851c1c94dbe499a45fdf2"
        )
    )
    judge = verifier(Key(b"k1", SECRET, issuer="streamgate", require=()))
    assert judge.read(token).deadline == 1_500_000_030
    assert verdict(token, replace(Request(), now=1_500_000_029), judge) == "accept"
    assert verdict(token, replace(Request(), now=1_500_000_030), judge) == "token_expired"


class TestKeys:
    def test_a_key_belongs_to_one_issuer(self) -> None:
        ours = KEY.verifying()
        theirs = Key(
            b"shop", b"s" * 32, issuer="shop", audience=("site-eu-1",), require=("exp",), prefixes=("/v/shop-",)
        )
        judge = verifier(ours, theirs)
        by_them = replace(KEY, kid=b"shop", secret=b"s" * 32)
        from streamgate.access.tokens import sign

        ends: dict[int | str, Any] = {4: 4_102_444_800}
        assert verdict(sign(by_them, {**ends, 1: "streamgate"}), by=judge) == "token_issuer"
        assert verdict(sign(by_them, {}), by=judge) == "token_missing_claim"
        assert verdict(sign(by_them, ends), by=judge) == "token_path"
        assert verdict(sign(by_them, ends), Request(path="/v/shop-1/main.mpd"), judge) == "accept"
        assert (
            verdict(sign(by_them, {**ends, 3: "site-us-1"}), Request(path="/v/shop-1/main.mpd"), judge)
            == "token_audience"
        )

    def test_an_audience_that_nobody_configured_is_another(self) -> None:
        judge = verifier(Key(b"k1", SECRET, issuer="streamgate"))
        assert verdict(signed({}), by=judge) == "token_audience"

    @pytest.mark.parametrize("size", [32, 63, 64, 65, 200])
    def test_secrets_of_any_length_from_32_bytes(self, size: int) -> None:
        from streamgate.access.tokens import sign

        secret = bytes(n * 7 % 256 for n in range(size))
        judge = verifier(Key(b"k1", secret, issuer="streamgate", audience=("site-eu-1",)))
        assert verdict(sign(replace(KEY, secret=secret), BASE), by=judge) == "accept"
        assert verdict(sign(KEY, BASE), by=judge) == "token_signature"

    def test_a_wrong_key_is_refused(self) -> None:
        assert code(Key, b"k1", b"x" * 31, issuer="i") == "config_invalid"
        assert code(Key, b"", SECRET, issuer="i") == "config_invalid"
        assert code(Key, b"k1", SECRET, issuer="i", require=("exp", "expiry")) == "config_invalid"
        assert code(Verifier, [KEY.verifying(), KEY.verifying()]) == "config_invalid"

    def test_no_repr_and_no_pickle_tells_the_secret(self) -> None:
        import pickle

        key = KEY.verifying()
        for shown in (repr(key), repr(KEY), str(vars(type(key))), repr(verifier())):
            assert SECRET.hex() not in shown and repr(SECRET)[2:10] not in shown
        with pytest.raises(TypeError):
            pickle.dumps(key)

    def test_a_removed_key_ends_its_tokens(self) -> None:
        judge = verifier()
        token = judge.read(signed({}))
        judge.configure([])
        assert code(check, token, Request(), judge) == "token_key"
        assert code(judge.read, signed({})) == "token_key"


class TestRevocation:
    def test_of_a_session_ends_all_its_tokens(self) -> None:
        judge = verifier()
        first, renewed = judge.read(signed({})), signed({7: SESSION + b"\x01"})
        other = judge.read(signed({7: b"another session!"}))
        check(first, Request(), judge)
        judge.revoke_session(SESSION, NOW + 100)
        assert judge.revoked == 1
        assert code(check, first, Request(), judge) == "token_revoked"
        assert code(judge.read, renewed) == "token_revoked"
        check(other, Request(), judge)
        judge.restore_session(SESSION)
        check(first, Request(), judge)

    def test_a_whole_cti_means_its_session_and_a_short_one_itself(self) -> None:
        judge = verifier()
        short = signed({7: b"abc"})
        judge.revoke_session(SESSION + b"\x07", NOW)
        assert code(judge.read, signed({})) == "token_revoked"
        assert judge.read(short).session == b"abc"
        judge.revoke_session(b"abc", NOW)
        assert code(judge.read, short) == "token_revoked"
        assert judge.read(signed({7: b"abcd"})).session == b"abcd"

    def test_a_token_without_cti_cannot_be_written_anew(self) -> None:
        judge = verifier(Key(b"k1", SECRET, issuer="streamgate", audience=("site-eu-1",), require=()))
        token = signed({7: None})
        again = text(raw(token)[2:])
        extended = text(raw(token).replace(b"\xa1\x04\x42k1", b"\xa2\x04\x42k1\x03\x00"))
        handles = {judge.read(form).session for form in (token, again, extended)}
        assert len(handles) == 1 and len(next(iter(handles))) == 16
        judge.revoke_session(handles.pop(), NOW)
        assert {code(judge.read, form) for form in (token, again, extended)} == {"token_revoked"}

    def test_of_a_key(self) -> None:
        judge = verifier()
        token = judge.read(signed({}))
        judge.revoke_kid(b"k1", NOW)
        assert code(check, token, Request(), judge) == code(judge.read, signed({})) == "token_revoked"
        judge.restore_kid(b"k1")
        check(token, Request(), judge)

    def test_an_entry_leaves_when_its_time_has_passed(self) -> None:
        judge = verifier()
        judge.revoke_session(SESSION, NOW + 30)
        judge.revoke_session(SESSION, NOW + 10)
        judge.revoke_kid(b"k9", NOW)
        judge.revoke_kid(b"k8", 2**70)
        assert judge.forget(NOW) == 1
        assert judge.forget(NOW + 29) == 0
        assert judge.forget(NOW + 30) == 1
        assert judge.forget(2**63 - 1) == 0
        assert judge.revoked == 1
        judge.read(signed({}))

    def test_changes_are_counted(self) -> None:
        judge = verifier()
        generation, revocations = judge.generation, judge.revocations
        judge.revoke_session(SESSION, NOW)
        judge.configure([KEY.verifying()])
        assert (judge.generation, judge.revocations) == (generation + 1, revocations + 1)


class TestToken:
    def test_it_remembers(self) -> None:
        token = verifier().read(signed({5: NOW - 10}))
        assert (token.kid, token.session, token.deadline, token.start) == (b"k1", SESSION, 4_102_444_830, NOW - 70)
        assert token.key.issuer == "streamgate"
        assert not token.unsupported
        assert verifier().read(signed({316: ["DE"]})).unsupported

    def test_nobody_else_makes_one(self) -> None:
        with pytest.raises(TypeError):
            Token()
        empty = Token.__new__(Token)
        with pytest.raises(TypeError):
            empty.check(path=PATH, now=NOW)
        with pytest.raises(TypeError):
            check(empty, Request(), verifier())
        assert empty.session == b""

    def test_bytes_and_text_are_the_same(self) -> None:
        judge = verifier()
        assert judge.read(signed({}).encode()).session == judge.read(signed({})).session
        assert code(judge.read, "é\ud800") == code(judge.read, b"\xff\xfe") == "token_malformed"

    def test_the_same_token_is_asked_about_each_request(self) -> None:
        judge = verifier()
        token = judge.read(signed({312: {3: {1: "/v/abc123/"}}, 313: ["GET"]}))
        check(token, Request(), judge)
        for changed, told in (
            ({"method": "HEAD"}, "token_method"),
            ({"path": "/v/abc1234/main.mpd"}, "token_path"),
            ({"now": 4_102_444_830}, "token_expired"),
        ):
            assert code(check, token, replace(Request(), **changed), judge) == told
        check(token, Request(), judge)


class TestEnvelope:
    def test_headers(self) -> None:
        def with_headers(protected: object, unprotected: object) -> str:
            return verdict(payload(encode(BASE), protected=encode(protected), unprotected=encode(unprotected)))  # type: ignore[arg-type]

        assert with_headers({1: 5}, {4: b"k1", 3: 61, "x": [1, {2: 3}]}) == "accept"
        assert with_headers({1: 5, 4: b"k1"}, {4: b"k1"}) == "accept"
        assert with_headers({1: 5}, {4: "k1"}) == "token_malformed"
        assert with_headers({1: 5}, {1: 5, 4: b"k1"}) == "token_malformed"
        assert with_headers({1: "HS256"}, {4: b"k1"}) == "token_algorithm"
        assert with_headers({1: 5, 2: [4]}, {4: b"k1"}) == "accept"
        assert with_headers({1: 5, 2: [99], 99: 1}, {4: b"k1"}) == "token_unsupported"
        assert with_headers({1: 5, 2: []}, {4: b"k1"}) == "token_malformed"
        assert with_headers({1: 5}, {2: [4], 4: b"k1"}) == "token_malformed"
        assert with_headers({1: -7}, {4: b"k1"}) == "token_algorithm"

    def test_tags(self) -> None:
        inner = raw(signed({}))[2:]
        assert verdict(text(b"\xd9\x00\x3d" + inner)) == "accept"
        assert verdict(text(b"\xd8\x3d\xd8\x3d" + inner)) == "token_malformed"
        assert verdict(text(b"\xd8\x3e" + inner)) == "token_malformed"
        assert verdict(text(b"\xd8\x3d\xd3" + inner[1:])) == "token_malformed"

    def test_every_cut_and_every_flipped_bit_is_refused(self) -> None:
        judge = verifier()
        whole = raw(signed({312: {3: {1: "/v/abc123/"}}}))
        for length in range(len(whole)):
            assert verdict(text(whole[:length]), by=judge) == "token_malformed"
        refused = {"token_malformed", "token_algorithm", "token_key", "token_signature"}
        for position in range(len(whole)):
            for bit in range(8):
                changed = bytearray(whole)
                changed[position] ^= 1 << bit
                assert verdict(text(bytes(changed)), by=judge) in refused, (position, bit)

    def test_base64url_has_one_spelling(self) -> None:
        token = signed({310: None, -70000: b"x"})
        assert len(token) % 4 in (2, 3)
        spare = token[:-1] + chr(ord(token[-1]) + 1)
        assert raw(spare) == raw(token)
        assert verdict(spare) == "token_malformed"
        for wrong in ("+", "/", "=", " ", "\n", "\0", "%", "é"):
            assert verdict(token[:8] + wrong + token[9:]) == "token_malformed"

    def test_length(self) -> None:
        fill = 1024 * 3 // 4 - len(raw(signed({-70000: b""}))) - 4
        fits = signed({-70000: b"x" * fill})
        assert 1016 <= len(fits) <= 1024
        assert verdict(fits) == "accept"
        assert verdict(signed({-70000: b"x" * (fill + 8)})) == "token_too_long"
        assert verdict("!" * 1025) == "token_too_long"


MALFORMED: list[tuple[str, dict[int | str, Any]]] = [
    ("iss", {1: 5}), ("sub", {2: b"x"}), ("aud", {3: 5}), ("aud of bytes", {3: [b"site-eu-1"]}), ("exp", {4: b""}),
    ("nbf", {5: "1"}), ("iat", {6: [1]}), ("cti", {7: "text"}), ("cti empty", {7: b""}), ("or", {41: {}}),
    ("or empty", {41: []}), ("or of numbers", {41: [1]}), ("claims inside", {43: [{4: "x"}]}), ("crit", {45: 312}),
    ("crit empty", {45: []}), ("crit of bytes", {45: [b"x"]}), ("catreplay", {308: "0"}), ("catv", {310: "1"}),
    ("catnip", {311: 64500}), ("catnip text", {311: ["203.0.113.7"]}), ("address length", {311: [Tagged(52, b"\1\2\3")]}),
    ("prefix length", {311: [Tagged(52, [33, b"\1\2\3\4"])]}), ("prefix order", {311: [Tagged(52, [b"\1\2\3\4", 24])]}),
    ("prefix bytes", {311: [Tagged(52, [24, b"\1\2\3\4\5"])]}), ("bits behind", {311: [Tagged(52, [24, b"\1\2\3\4"])]}),
    ("bits behind 2", {311: [Tagged(54, [33, b"\x20\x01\x0d\xb8\x40"])]}), ("catu", {312: []}), ("catu empty", {312: {}}),
    ("component", {312: {3: "x"}}), ("matcher", {312: {3: {1: b"/v/"}}}), ("digest", {312: {3: {-1: "x"}}}),
    ("catm", {313: "GET"}), ("catm of numbers", {313: [1]}), ("catif", {322: []}), ("catifdata", {320: 1}),
    ("catr", {323: []}), ("catr type", {323: {0: 4, 1: 60}}), ("catr seconds", {323: {0: 1, 1: "60"}}),
    ("catr cookie", {323: {0: 1, 1: 60, 3: b"x"}}),
]  # fmt: skip


@pytest.mark.parametrize("claims", [claims for _, claims in MALFORMED], ids=[name for name, _ in MALFORMED])
def test_claims_of_a_wrong_form(claims: dict[int | str, Any]) -> None:
    assert verdict(signed(claims)) == "token_malformed"


@pytest.mark.parametrize(
    "item",
    [
        b"\x1c", b"\x1f", b"\x5f\x41x\xff", b"\x7f\x61x\xff", b"\x9f\xff", b"\xbf\xff", b"\xff", b"\xf8\x1f", b"\xfc",
        b"\x62\xc3\x28", b"\x63\xed\xa0\x80", b"\x62\xc0\x80", b"\x64\xf5\x80\x80\x80", b"\x61\x80", b"\x58", b"\x5b" + b"\xff" * 8,
        b"\x9b" + b"\xff" * 8, b"\xbb" + b"\xff" * 8, b"\xa1\x81\x01\x02", b"\xa1\xf5\x02", b"\xa2\x01\x02\x18\x01\x03",
        b"\xa2\x61x\x01\x78\x01x\x02", b"\x81" * 8 + b"\x01", b"\xc1" * 8 + b"\x01", b"",
    ],
    ids=lambda item: item.hex()[:12],
)  # fmt: skip
def test_items_that_are_not_cbor_or_not_allowed(item: bytes) -> None:
    claims = encode(BASE)
    private = encode(-70000)
    assert verdict(payload(bytes([claims[0] + 1]) + claims[1:] + private + item)) == "token_malformed"


@pytest.mark.parametrize(
    "item",
    [b"\xf5", b"\xf6", b"\xf7", b"\xe0", b"\xf8\x20", b"\xf9\x7e\x00", b"\xfb" + b"\x7f" * 8, b"\xc1\x01", b"\xd9\xff\xff\x60",
     b"\x81" * 7 + b"\x01", b"\x64\xf0\x9f\x8e\xac", b"\xa2\x01\x02\x61\x01\x03", b"\x3b" + b"\xff" * 8],
    ids=lambda item: item.hex()[:12],
)  # fmt: skip
def test_items_that_are_allowed_in_private_claims(item: bytes) -> None:
    claims = encode(BASE)
    assert verdict(payload(bytes([claims[0] + 1]) + claims[1:] + encode(-70000) + item)) == "accept"


@pytest.mark.parametrize(
    ("item", "deadline"),
    [
        (b"\xf9\x7b\xff", 65504), (b"\xf9\x00\x01", 1), (b"\xf9\x00\x00", 0), (b"\xf9\x3c\x00", 1), (b"\xf9\x3e\x00", 2),
        (b"\xfa" + struct.pack(">f", 1.5e9), 1_500_000_000), (b"\xfb" + struct.pack(">d", 1.8e9 + 0.25), 1_800_000_001),
        (b"\x1b" + struct.pack(">Q", 1 << 53), 1 << 53), (b"\xfb" + struct.pack(">d", 2.0**53), 1 << 53), (b"\x18\x05", 5),
    ],
    ids=lambda item: item.hex() if isinstance(item, bytes) else "",
)  # fmt: skip
def test_dates_in_every_encoding(item: bytes, deadline: int) -> None:
    judge = verifier(Key(b"k1", SECRET, issuer="streamgate", require=()))
    assert judge.read(payload(b"\xa1\x04" + item)).deadline == deadline + 30


@pytest.mark.parametrize(
    "item",
    [b"\xf9\x7c\x00", b"\xf9\xfc\x00", b"\xf9\x7e\x01", b"\xf9\x80\x01", b"\xfa\x7f\xc0\x00\x00", b"\x20", b"\xf4", b"\xc1\x01",
     b"\xfb" + struct.pack(">d", 2.0**53 + 2), b"\x1b" + struct.pack(">Q", (1 << 53) + 1), b"\xc2\x41\x01"],
    ids=lambda item: item.hex(),
)  # fmt: skip
def test_what_is_no_date(item: bytes) -> None:
    assert (
        verdict(payload(b"\xa1\x04" + item), by=verifier(Key(b"k1", SECRET, issuer="s", require=())))
        == "token_malformed"
    )


EVALUATED: list[tuple[str, dict[int | str, Any], Request, str]] = [
    ("any form of a host", {312: {1: {0: "CDN.example.com"}}}, Request(host="cdn.EXAMPLE.com:8443"), "accept"),
    ("a v6 host", {312: {1: {0: "[2001:db8::1]"}}}, Request(host="[2001:db8::1]:443"), "accept"),
    ("no host", {312: {1: {2: ".com"}}}, Request(host=""), "token_path"),
    ("scheme", {312: {0: {0: "https"}}}, Request(), "accept"),
    ("another scheme", {312: {0: {0: "https"}}}, Request(scheme="http"), "token_path"),
    ("a path's case counts", {312: {3: {1: "/V/"}}}, Request(), "token_path"),
    ("a part of a longer asset", {312: {3: {1: "/v/abc123/"}}}, Request(path="/v/abc1234/main.mpd"), "token_path"),
    ("longer than the path", {312: {3: {1: PATH + "x"}}}, Request(), "token_path"),
    ("parent", {312: {5: {1: "/v/abc", 2: "33"}}}, Request(), "accept"),
    ("parent at the top", {312: {5: {0: ""}}}, Request(path="/x"), "accept"),
    ("contains is not evaluated", {312: {3: {3: "abc"}}}, Request(), "token_unsupported"),
    ("query is not evaluated", {312: {4: {0: "x"}}}, Request(), "token_unsupported"),
    ("a no beside what is not", {312: {8: {0: ".m4s"}, 3: {1: "/x"}}}, Request(), "token_path"),
    ("no audience", {3: []}, Request(), "token_audience"),
    ("no method", {313: []}, Request(), "token_method"),
    ("a method's case counts", {313: ["get"]}, Request(), "token_method"),
    ("no network", {311: []}, Request(), "token_network"),
    ("a network or a number", {311: [64500, Tagged(52, bytes((203, 0, 113, 7)))]}, Request(), "accept"),
    ("another network or a number", {311: [64500, Tagged(52, bytes(4))]}, Request(), "token_unsupported"),
    ("no address known", {311: [Tagged(52, bytes(4))]}, Request(address=b""), "token_unsupported"),
    ("an old tag", {311: [Tagged(260, bytes(4))]}, Request(), "token_unsupported"),
    ("mapped", {311: [Tagged(52, [8, b"\xcb"])]}, Request(address=b"\0" * 10 + b"\xff\xff" + b"\xcb\0\x71\7"), "accept"),
    ("all of IPv4", {311: [Tagged(52, [0, b""])]}, Request(), "accept"),
    ("all of IPv4, not 6", {311: [Tagged(52, [0, b""])]}, Request(address=b"\x20" + bytes(15)), "token_network"),
    ("12 bits", {311: [Tagged(52, [12, b"\xcb\0"])]}, Request(address=bytes((203, 15, 0, 1))), "accept"),
    ("beyond 12 bits", {311: [Tagged(52, [12, b"\xcb\0"])]}, Request(address=bytes((203, 16, 0, 1))), "token_network"),
    ("expiry before method", {4: 5, 313: []}, Request(), "token_expired"),
    ("start before method", {5: NOW + 61, 313: []}, Request(), "token_not_yet_valid"),
    ("method before path", {313: [], 312: {3: {0: ""}}}, Request(), "token_method"),
    ("path before network", {311: [], 312: {3: {0: ""}}}, Request(), "token_path"),
    ("network before the unknown", {311: [], 316: ["DE"]}, Request(), "token_network"),
    ("the last second of skew", {5: NOW + 60}, Request(), "accept"),
    ("half a second in the future", {5: NOW + 60.5}, Request(), "token_not_yet_valid"),
    ("catreplay 2", {308: 2}, Request(), "token_unsupported"),
    ("the first private key", {-65537: 1}, Request(), "accept"),
    ("the last that is not", {-65536: 1}, Request(), "token_unsupported"),
    ("a text key", {"note": 1}, Request(), "token_unsupported"),
    ("a huge key", {2**64 - 1: 1}, Request(), "token_unsupported"),
    ("a huge negative key", {-(2**64): 1}, Request(), "accept"),
    ("crit of all that is understood", {45: [1, 2, 3, 4, 5, 6, 7, 308, 310, 311, 312, 313]}, Request(), "accept"),
    ("crit of what is only read", {45: [323]}, Request(), "token_unsupported"),
    ("crit of a text", {45: ["x"]}, Request(), "token_unsupported"),
    ("shapes that restrict nothing", {2: "x", 6: 1, 308: 0, 320: {}, 322: {}, 323: {0: 2, 1: 60, 7: 302}}, Request(), "accept"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("claims", "request_", "expected"), [row[1:] for row in EVALUATED], ids=[r[0] for r in EVALUATED]
)
def test_claims_as_evaluated(claims: dict[int | str, Any], request_: Request, expected: str) -> None:
    assert verdict(signed(claims), request_) == expected


@pytest.mark.parametrize(
    "key", sorted(set(cat.CLAIMS.values()) - {1, 2, 3, 4, 5, 6, 7, 308, 310, 311, 312, 313, 320, 322, 323})
)
def test_every_other_claim_fails_closed(key: int) -> None:
    values: dict[int, Any] = {41: [{}], 42: [{}], 43: [{}], 45: [299], 315: {"x": {0: "y"}}, 316: ["DE"]}
    assert verdict(signed({key: values.get(key, b"x")})) == "token_unsupported"


@pytest.mark.parametrize("name", sorted(cat.CLAIMS))
def test_every_claim_can_be_required(name: str) -> None:
    judge = verifier(Key(b"k1", SECRET, issuer="streamgate", require=(name,)))
    assert verdict(payload(b"\xa0"), by=judge) == "token_missing_claim"


def test_an_address_of_another_length_is_a_mistake() -> None:
    assert code(verifier().read(signed({})).check, path=PATH, address=b"123", now=NOW) == "internal"


def test_decode_for_people() -> None:
    whole = encode({**BASE, 311: [Tagged(52, [8, b"\xcb"])], -70000: 0})[:-1] + b"\x84\xf6\xf9\x3e\x00\xf5\xe0"
    tag, protected, unprotected, claims = cat.decode(payload(whole))
    assert (tag, protected, unprotected) == (17, {1: 5}, {4: b"k1"})
    assert claims == {**BASE, 311: [(52, [8, b"\xcb"])], -70000: [None, 1.5, True, "simple(0)"]}
    assert code(cat.decode, "x" * 1025) == "token_too_long"
    assert code(cat.decode, "AAAA") == code(cat.decode, payload(b"\x80")) == "token_malformed"
    assert code(cat.decode, payload(b"\xa0\x00")) == "token_malformed"


@pytest.mark.parametrize(
    ("claims", "due"),
    [
        ({4: NOW + 100, 323: {0: 2, 1: 60, 2: 30}}, NOW + 70),
        ({4: NOW + 100, 323: {2: 0, 1: 60, 0: 2}}, NOW + 100),
        ({4: NOW + 100, 323: {0: 1, 1: 61}}, NOW + 70),
        ({4: NOW + 99.5, 323: {0: 1, 1: 60, 3: "x", 5: ["Path=/"]}}, NOW + 70),
        ({-70000: {1: 7}, 323: {0: 0, 1: 1, 2: 2**64 - 1}, 4: NOW + 100}, 0),
        ({4: NOW + 100}, 2**63 - 1),
        ({4: None, 323: {0: 2, 1: 60}}, 2**63 - 1),
    ],
)
def test_when_a_token_is_due_to_be_renewed(claims: dict[int | str, Any], due: int) -> None:
    ours, theirs = (Key(KEY.kid, SECRET, issuer=KEY.issuer, audience=KEY.audience, require=(), leased=leased) for leased in (True, False))  # fmt: skip
    token = signed(claims)
    assert verifier(ours).read(token).due == due
    judge = verifier(theirs)
    judge.remember(token, 2**62)
    assert judge.read(token).due == 2**63 - 1, "of others none is renewed"


def test_libcrypto_tells_its_version() -> None:
    assert cat.OPENSSL.startswith("OpenSSL ")
