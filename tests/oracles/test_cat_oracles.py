"""Tokens that others made are read here, and others read those made here: PyPI ``cwt`` and npm ``@eyevinn/cat``."""

from __future__ import annotations

import json
import subprocess
import time
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cwt
import pytest
from cwt import CWT, COSEKey

from streamgate.access import tokens
from streamgate.native import cat
from tests.conftest import ROOT, find_program
from tests.token_factory import KEY, PATH, SECRET, SESSION, VECTORS, Request, raw, text, verdict

URL = f"https://cdn.example.com{PATH}"
THEIRS = COSEKey.from_symmetric_key(key=SECRET, alg="HS256", kid="k1")
OTHER = COSEKey.from_symmetric_key(key=bytes(32), alg="HS256", kid="k1")


def now() -> Request:
    return Request(now=int(time.time()))


def ends(seconds: int = 1000) -> int:
    return int(time.time()) + seconds


def mint(**more: Any) -> str:
    given: dict[str, Any] = {"asset": "abc123", "session": SESSION, "expires": ends(), **more}
    return tokens.mint(KEY, **given)


class TestCwt:
    @pytest.mark.parametrize(
        "more",
        [{}, {"counter": b"\1\2"}, {"subject": "someone", "starts": 1_700_000_000}, {"methods": ("GET", "HEAD")},
         {"renewal": tokens.Renewal(2, 300)}, {"networks": (ip_network("203.0.113.0/24"), ip_network("2001:db8::/32"))}],
        ids=lambda more: "-".join(more) or "plain",
    )  # fmt: skip
    def test_reads_ours(self, more: dict[str, Any]) -> None:
        token = mint(**more)
        read = cwt.decode(raw(token), keys=[THEIRS])
        assert isinstance(read, dict)
        assert {key: value for key, value in read.items() if key != 311} == {
            key: value for key, value in cat.decode(token)[3].items() if key != 311
        }
        assert len(read.get(311, ())) == len(more.get("networks", ()))
        with pytest.raises(cwt.VerifyError):
            cwt.decode(raw(token), keys=[OTHER])

    @pytest.mark.parametrize("tagged", [True, False], ids=["tag 61", "no tag 61"])
    @pytest.mark.parametrize(
        ("claims", "expected"),
        [
            ({}, "accept"),
            ({312: {3: {1: "/v/abc123/"}}, 313: ["GET", "HEAD"], 310: 1}, "accept"),
            ({312: {3: {1: "/v/other/"}}}, "token_path"),
            ({313: ["HEAD"]}, "token_method"),
            ({1: "somebody"}, "token_issuer"),
            ({3: ["site-us-1"]}, "token_audience"),
            ({316: ["DE"]}, "token_unsupported"),
        ],
    )
    def test_is_read_here(self, claims: dict[int, Any], expected: str, tagged: bool) -> None:
        base = {1: "streamgate", 3: "site-eu-1", 4: ends(), 5: ends(-2000), 6: ends(-2000), 7: SESSION}
        made = cwt.encode({**base, **claims}, THEIRS, tagged=tagged)
        assert verdict(text(made), now()) == expected
        assert verdict(text(cwt.encode({**base, **claims}, OTHER, tagged=tagged)), now()) == "token_signature"

    def test_is_expired_here_as_there_and_after_the_grace(self) -> None:
        token = mint(expires=ends(-10))
        with pytest.raises(cwt.VerifyError):
            CWT.new(leeway=1).decode(raw(token), keys=[THEIRS])
        assert verdict(token, now()) == "accept"
        assert verdict(mint(expires=ends(-31)), now()) == "token_expired"

    def test_agrees_on_every_vector_that_is_accepted_here(self) -> None:
        accepted = [vector for vector in VECTORS["vectors"] if vector["expect"] == "accept"]
        assert len(accepted) > 30
        # The vectors' time is not ours.
        theirs = CWT.new(leeway=10**9)
        for vector in accepted:
            read = theirs.decode(raw(vector["token"]), keys=[THEIRS])
            assert isinstance(read, dict) and read[1] == "streamgate", vector["name"]


def claims(more: dict[str, Any]) -> dict[str, Any]:
    return {"iss": "streamgate", "aud": "site-eu-1", "exp": ends(), "cti": SESSION.hex(), **more}


def ask(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    node = find_program("node")
    assert node
    told = {"key": SECRET.hex(), "kid": "k1", "issuer": "streamgate", "jobs": jobs}
    command = [node, str(Path(__file__).with_name("eyevinn_cat.mjs")), str(ROOT / "web")]
    done = subprocess.run(command, input=json.dumps(told), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    assert len(answers) == len(jobs)
    return answers


@pytest.fixture(scope="module")
def made() -> list[dict[str, Any]]:
    return ask([{"make": claims(more)} for more, _, _ in TestEyevinn.CASES])


@pytest.mark.needs("node")
class TestEyevinn:
    CASES: list[tuple[dict[str, Any], str, str | None]] = [
        ({}, "accept", None),
        ({"catu": {"path": {"prefix-match": "/v/abc123/"}}, "catm": ["GET"], "catv": 1}, "accept", None),
        ({"catu": {"path": {"prefix-match": "/v/other/"}}}, "token_path", "UriNotAllowedError"),
        ({"catu": {"host": {"suffix-match": ".example.com"}, "scheme": {"exact-match": "https"}}}, "accept", None),
        ({"catu": {"parent-path": {"exact-match": PATH.rpartition("/")[0]}}}, "accept", None),
        ({"catu": {"path": {"exact-match": PATH}}}, "accept", None),
        ({"catnip": ["203.0.113.7", "2001:db8::/32"]}, "accept", None),
        ({"catnip": ["198.51.100.1"]}, "token_network", "IPNotAllowed"),
        ({"iss": "somebody"}, "token_issuer", "InvalidIssuerError"),
        ({"aud": ["site-us-1"]}, "token_audience", "InvalidAudienceError"),
        ({"aud": ["site-us-1", "site-eu-1"]}, "accept", None),
        ({"catr": {"type": "cookie", "expadd": 120, "deadline": 60}}, "accept", None),
        ({"catreplay": 1}, "token_unsupported", None),
        ({"catgeoiso3166": ["DE"]}, "token_unsupported", None),
    ]

    def test_is_read_here(self, made: list[dict[str, Any]]) -> None:
        for (more, expected, _), answer in zip(self.CASES, made, strict=True):
            assert verdict(answer["token"], now()) == expected, more

    def test_says_the_same_of_its_own_where_it_looks(self, made: list[dict[str, Any]]) -> None:
        jobs = [{"token": one["token"], "url": URL, "ip": "203.0.113.7", "audience": ["site-eu-1"]} for one in made]
        for (more, _, error), answer in zip(self.CASES, ask(jobs), strict=True):
            assert answer.get("error") == error, more

    def test_reads_ours(self) -> None:
        networks = tuple(ip_network(network) for network in ("203.0.113.0/24", "198.51.100.1/32", "2001:db8::/32"))
        cases = [
            (mint(), URL, "203.0.113.7", None),
            (mint(counter=b"\1"), URL, "203.0.113.7", None),
            (mint(), "https://cdn.example.com/v/other/main.mpd", "203.0.113.7", "UriNotAllowedError"),
            (mint(networks=networks), URL, "203.0.113.99", None),
            (mint(networks=networks), URL, "198.51.100.1", None),
            (mint(networks=networks), URL, "2001:db8::1", None),
            (mint(networks=networks), URL, "192.0.2.1", "IPNotAllowed"),
            (mint(renewal=tokens.Renewal(1, 300, 60), methods=("GET",)), URL, "203.0.113.7", None),
            (mint(expires=ends(-60)), URL, "203.0.113.7", "TokenExpiredError"),
            (mint(starts=ends(900)), URL, "203.0.113.7", "TokenNotActiveError"),
        ]
        jobs = [{"token": token, "url": url, "ip": ip, "audience": ["site-eu-1"]} for token, url, ip, _ in cases]
        assert [answer.get("error") for answer in ask(jobs)] == [error for _, _, _, error in cases]
        for token, url, ip, error in cases:
            request = Request(path=urlsplit(url).path, address=ip_address(ip).packed, now=int(time.time()))
            assert (verdict(token, request) == "accept") == (error is None)
