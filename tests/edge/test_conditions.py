"""What the kernel leaves open of a token: every published vector, every claim that is evaluated slowly, and what fails closed."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streamgate.core.settings import GeoipSettings
from tests.edge.judging import Judge
from tests.geoip_factory import number, place, write
from tests.token_factory import NOW, PATH, VECTORS, Request, Tagged, asked, signed

OURS: dict[int | str, Any] = {312: {3: {1: "/v/abc123/"}}}
YES: dict[int | str, Any] = {313: ["GET"]}
NO: dict[int | str, Any] = {313: ["POST"]}
UNKNOWN: dict[int | str, Any] = {319: b"tls"}


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


@pytest.fixture(scope="module")
def located(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """One that knows where addresses are."""
    folder = tmp_path_factory.mktemp("geoip")
    write(
        folder / "city.mmdb",
        {
            "203.0.113.0/24": place("DE", "BE", at=(52.52, 13.40, 5)),
            "198.51.100.0/24": place("US"),
            "2001:db8::/32": place("US", "CA"),
        },
    )
    write(folder / "asn.mmdb", {"203.0.113.0/24": number(64500)})
    yield Judge(GeoipSettings(country=str(folder / "city.mmdb"), asn=str(folder / "asn.mmdb")))


def packed(address: str) -> Request:
    return replace(Request(), address=ipaddress.ip_address(address).packed)


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_every_published_vector_gets_its_own_answer(judge: Judge, vector: dict[str, Any]) -> None:
    fields = vector["request"]["headers"]
    assert judge.verdict(vector["token"], asked(vector), fields=fields) == vector["expect"], vector["why"]


def test_the_vectors_know_no_database_and_no_single_use(located: Judge) -> None:
    differ = {v["name"] for v in VECTORS["vectors"] if located.verdict(v["token"], asked(v)) != v["expect"]}
    assert differ == {
        "network_asn_only",
        "geo",
        "node_geo",
        "or_unknown_false",
        "nor_unknown",
        "and_unknown",
    }


class TestMatches:
    @pytest.mark.parametrize(
        "matchers, expected",
        [
            ({4: [r"/v/abc123/.*\.m4s"]}, "accept"),
            ({4: [r"/v/abc123/[a-z0-9-]+/\d+\.m4s"]}, "accept"),
            ({4: ["/v/abc123"]}, "token_path"),
            ({4: ["abc123"]}, "token_path"),
            ({4: ["(?i)/V/ABC123/.*"]}, "accept"),
            ({4: ["/v/other/.*"]}, "token_path"),
            ({4: ["/v/(abc123"]}, "token_unsupported"),
            ({4: [r"(.)\1.*"]}, "token_unsupported"),
            ({4: ["(?=/v).*"]}, "token_unsupported"),
            ({4: ["x{1000}" * 36]}, "token_unsupported"),
            ({4: [".*" + "x" * 255]}, "token_unsupported"),
            ({4: "/v/abc123/.*"}, "token_unsupported"),
            ({4: ["/v/abc123/.*", "i"]}, "token_unsupported"),
            ({4: []}, "token_unsupported"),
            ({4: [7]}, "token_unsupported"),
            ({3: "abc123"}, "accept"),
            ({3: "abc124"}, "token_path"),
            ({-1: hashlib.sha256(PATH.encode()).digest()}, "accept"),
            ({-1: hashlib.sha256(b"/").digest()}, "token_path"),
            ({-2: hashlib.new("sha512_256", PATH.encode()).digest()}, "accept"),
            ({-2: hashlib.sha512(PATH.encode()).digest()[:32]}, "token_path"),
            ({-1: b"short"}, "token_unsupported"),
            ({1: "/v/abc123/", 4: ["/v/zzz/.*"]}, "token_path"),
            ({1: "/v/zzz/", 9: "x"}, "token_path"),
            ({1: "/v/abc123/", 9: "x"}, "token_unsupported"),
        ],
    )
    def test_of_a_path(self, judge: Judge, matchers: dict[int, Any], expected: str) -> None:
        assert judge.verdict(signed({312: {3: matchers}})) == expected

    @pytest.mark.parametrize(
        "component, matcher, expected",
        [
            (0, {3: "TTPS"}, "accept"),
            (1, {3: "EXAMPLE"}, "accept"),
            (1, {4: [r"[a-z]+\.example\.com"]}, "accept"),
            (1, {-1: hashlib.sha256(b"cdn.example.com").digest()}, "accept"),
            (5, {4: ["/v/abc123/v540-00112233"]}, "accept"),
            (6, {0: "7.m4s"}, "accept"),
            (6, {2: ".ts"}, "token_path"),
            (2, {0: "443"}, "token_unsupported"),
            (4, {0: ""}, "token_unsupported"),
            (7, {0: "7"}, "token_unsupported"),
            (8, {0: ".m4s"}, "token_unsupported"),
        ],
    )
    def test_of_other_components(self, judge: Judge, component: int, matcher: dict[int, Any], expected: str) -> None:
        request = replace(Request(), host="CDN.example.com:8443")
        assert judge.verdict(signed({312: {component: matcher}}), request) == expected

    def test_a_text_that_is_too_long_for_an_expression_is_not_looked_at(self, judge: Judge) -> None:
        token = signed({312: {3: {4: ["/v/.*"]}}})
        assert judge.verdict(token, replace(Request(), path="/v/" + "x" * 1021)) == "accept"
        assert judge.verdict(token, replace(Request(), path="/v/" + "x" * 1022)) == "token_unsupported"

    def test_of_one_token_so_many_expressions_are_looked_at(self) -> None:
        judge = Judge(patterns_per_token=3)
        some = [{312: {3: {4: [f"/v/{n}"]}}} for n in range(4)]
        assert judge.verdict(signed({41: [*some[:2], OURS, some[2]]})) == "accept"
        assert judge.verdict(signed({41: [some[0], some[1], some[2]]})) == "token_condition"
        assert judge.verdict(signed({41: some})) == "token_unsupported"

    def test_few_expressions_are_kept(self) -> None:
        judge = Judge(patterns=3)
        for n in range(10):
            assert judge.verdict(signed({312: {3: {4: [f"/v/abc123/.*|{n}"]}}})) == "accept"
        assert len(judge.conditions._patterns._kept) == 3


class TestHeaders:
    @pytest.mark.parametrize(
        "claim, expected",
        [
            ({"user-agent": {3: "Mozilla"}}, "accept"),
            ({"USER-AGENT": {1: "Mozilla/"}}, "accept"),
            ({"user-agent": {1: "mozilla/"}}, "token_header"),
            ({"user-agent": {4: [r"Mozilla/\d\.0"]}, "x-none": {1: ""}}, "token_header"),
            ({"x-none": {9: ""}}, "token_unsupported"),
            ({"user-agent": {9: ""}}, "token_unsupported"),
            ({"user-agent": {3: "Safari"}, "x-other": {9: "x"}}, "token_header"),
            ({"x-list": {0: "a, b"}}, "accept"),
            ({"x-broken": {1: ""}}, "token_unsupported"),
            ({}, "token_malformed"),
            ({"user-agent": {}}, "token_malformed"),
            ({"user-agent": "Mozilla"}, "token_malformed"),
            ({7: {0: "x"}}, "token_malformed"),
            ({"user-agent": {0: 1}}, "token_malformed"),
        ],
    )
    def test_of_the_request(self, judge: Judge, claim: Any, expected: str) -> None:
        fields = [("User-Agent", "Mozilla/5.0"), ("X-List", "a"), ("X-List", "b"), ("X-Broken", "\udcff")]
        assert judge.verdict(signed({**OURS, 315: claim}), fields=fields) == expected


class TestPlaces:
    @pytest.mark.parametrize(
        "claims, address, expected",
        [
            ({316: ["DE"]}, "203.0.113.7", "accept"),
            ({316: "de"}, "203.0.113.7", "accept"),
            ({316: ["DE"]}, "::ffff:203.0.113.7", "accept"),
            ({316: ["FR", "US"]}, "203.0.113.7", "token_condition"),
            ({316: ["DE-BE"]}, "203.0.113.7", "accept"),
            ({316: ["DE-BY"]}, "203.0.113.7", "token_condition"),
            ({316: ["US-CA"]}, "2001:db8::1", "accept"),
            ({316: ["US-CA"]}, "198.51.100.1", "token_unsupported"),
            ({316: ["US-CA"]}, "203.0.113.7", "token_condition"),
            ({316: ["DE"]}, "192.0.2.1", "token_unsupported"),
            ({316: ["Germany"]}, "203.0.113.7", "token_unsupported"),
            ({316: []}, "203.0.113.7", "token_condition"),
            ({316: [7]}, "203.0.113.7", "token_malformed"),
            ({311: [64500]}, "203.0.113.7", "accept"),
            ({311: [64501]}, "203.0.113.7", "token_network"),
            ({311: [64501, 64500]}, "203.0.113.7", "accept"),
            ({311: [64501, Tagged(52, [8, b"\xcb"])]}, "203.0.113.7", "accept"),
            ({311: [64500]}, "198.51.100.1", "token_unsupported"),
            ({311: [64500, Tagged(260, b"x")]}, "198.51.100.1", "token_unsupported"),
            ({317: [52.5, 13.4, 50_000]}, "203.0.113.7", "accept"),
            ({317: [[48.1, 11.6, 1000], [52.5, 13.4, 50_000]]}, "203.0.113.7", "accept"),
            ({317: [[48.1, 11.6, 1000]]}, "203.0.113.7", "token_condition"),
            ({317: [52.5, 13.4, 1000]}, "203.0.113.7", "token_unsupported"),
            ({317: [52.5, 13.4]}, "203.0.113.7", "token_unsupported"),
            ({317: [52.5, 13.4, float("nan")]}, "203.0.113.7", "token_unsupported"),
            ({317: [52.5, 13.4, 50_000]}, "198.51.100.1", "token_unsupported"),
            ({282: "u3"}, "203.0.113.7", "accept"),
            ({282: ["9q", "u33"]}, "203.0.113.7", "accept"),
            ({282: "u33db2"}, "203.0.113.7", "token_unsupported"),
            ({282: "9q"}, "203.0.113.7", "token_condition"),
            ({282: "!"}, "203.0.113.7", "token_unsupported"),
        ],
    )
    def test_with_databases(self, located: Judge, claims: dict[int | str, Any], address: str, expected: str) -> None:
        assert located.verdict(signed({**OURS, **claims}), packed(address)) == expected

    @pytest.mark.parametrize("claims", [{316: ["DE"]}, {311: [64500]}, {317: [52.5, 13.4, 50_000]}, {282: "u3"}])
    def test_without_a_database_and_without_an_address_they_are_unknown(
        self, judge: Judge, located: Judge, claims: dict[int | str, Any]
    ) -> None:
        assert judge.verdict(signed(claims)) == "token_unsupported"
        assert located.verdict(signed(claims), replace(Request(), address=b"")) == "token_unsupported"


class TestComposition:
    @pytest.mark.parametrize(
        "claims, expected",
        [
            ({41: [NO, YES]}, "accept"),
            ({41: [NO, UNKNOWN]}, "token_unsupported"),
            ({41: [UNKNOWN, YES]}, "accept"),
            ({42: [NO, UNKNOWN]}, "token_unsupported"),
            ({42: [NO, {**NO, **UNKNOWN}]}, "accept"),
            ({43: [YES, {**YES, 41: [YES, UNKNOWN]}]}, "accept"),
            ({43: [UNKNOWN, NO]}, "token_condition"),
            ({43: [{42: [{42: [NO]}]}]}, "token_condition"),
            ({41: [{1: "streamgate"}]}, "accept"),
            ({41: [{1: "other"}]}, "token_condition"),
            ({41: [{3: ["site-eu-1", "x"]}]}, "accept"),
            ({41: [{3: "x"}, {2: "anybody"}]}, "accept"),
            ({41: [{4: NOW - 29}]}, "accept"),
            ({41: [{4: NOW - 30}]}, "token_condition"),
            ({41: [{5: NOW + 60}]}, "accept"),
            ({42: [{5: NOW + 61.5}]}, "accept"),
            ({41: [{308: 1}]}, "token_unsupported"),
            ({41: [{-70000: 1}]}, "accept"),
            ({41: [{"text": 1}]}, "token_unsupported"),
            ({41: []}, "token_malformed"),
            ({41: [{}], 43: [{}]}, "accept"),
        ],
    )
    def test_is_three_valued(self, judge: Judge, claims: dict[int | str, Any], expected: str) -> None:
        assert judge.verdict(signed({**OURS, **claims})) == expected

    @pytest.mark.parametrize(
        "claims, expected",
        [
            ({312: {3: {4: ["/no"]}}, 311: [Tagged(52, bytes(4))]}, "token_path"),
            ({312: {3: {9: ""}}, 311: [Tagged(52, bytes(4))]}, "token_network"),
            ({312: {3: {9: ""}}, 315: {"x": {0: ""}}}, "token_header"),
            ({315: {"x": {0: ""}}, 41: [NO]}, "token_header"),
            ({319: b"", 42: [YES]}, "token_condition"),
            ({4: NOW - 30, 312: {3: {4: ["/no"]}}}, "token_expired"),
            ({313: ["POST"], 312: {3: {4: ["/no"]}}}, "token_method"),
        ],
    )
    def test_the_first_no_in_the_order_of_the_checks_is_told(
        self, judge: Judge, claims: dict[int | str, Any], expected: str
    ) -> None:
        assert judge.verdict(signed(claims)) == expected

    @pytest.mark.parametrize(
        "keys, expected",
        [
            ([312, 315, 316, 41, 42, 43, 322, 323, 308], "accept"),
            ([319], "token_unsupported"),
            ([312, 320], "token_unsupported"),
            (["x"], "token_unsupported"),
            ([-70000], "token_unsupported"),
            ([], "token_malformed"),
        ],
    )
    def test_what_is_critical_must_be_understood(self, judge: Judge, keys: list[Any], expected: str) -> None:
        assert judge.verdict(signed({**OURS, 45: keys})) == expected
        nested = {**OURS, 41: [{45: keys}]}
        assert judge.verdict(signed(nested)) == expected


@pytest.mark.parametrize("key", [8, 44, 299, 309, 314, 318, 319, 321, 324])
def test_what_is_not_evaluated_fails_closed(judge: Judge, key: int) -> None:
    values: dict[int, Any] = {8: {3: b""}, 309: [50], 314: ["h2"], 318: [0, 1], 321: {0: 1}, 324: ["x"]}
    assert judge.verdict(signed({**OURS, key: values.get(key, b"")})) == "token_unsupported"


def test_of_use_only_the_single_one_is_counted(tmp_path: Path) -> None:
    ready = Judge(store=tmp_path / "state.sqlite")
    for value in (2, 3, -1):
        assert (
            ready.verdict(signed({4: NOW + 60, 308: value}), replace(Request(), path="/v/abc123/main.mpd"))
            == "token_unsupported"
        )
