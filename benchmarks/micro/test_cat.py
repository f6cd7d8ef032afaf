"""What a playback token costs: read when it is new, and asked about a request each time."""

from __future__ import annotations

import os

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.tokens import fresh, issuer_of
from streamgate.access.keys import SharedKey
from streamgate.native.cat import Verifier

PATH = "/v/big-buck-bunny/v540-3fa9c1d2e07b4a55/7.m4s"


def made() -> tuple[Verifier, str, int]:
    key = SharedKey(
        b"site-eu-1.2", os.urandom(32), "https://auth.example.com/", ("site-eu-1",), ("iss", "exp", "cti", "aud")
    )
    [token] = fresh(key, 1)
    known = SharedKey(key.kid, key.secret, issuer_of(token), key.audience, key.require)
    verifier = Verifier([known.verifying()])
    return verifier, token, verifier.read(token).deadline - 60


def test_read_a_token(benchmark: BenchmarkFixture) -> None:
    verifier, token, _ = made()
    assert benchmark(lambda: verifier.read(token)).kid == b"site-eu-1.2"


def test_ask_a_token_about_a_request(benchmark: BenchmarkFixture) -> None:
    verifier, token, now = made()
    read = verifier.read(token)
    assert benchmark(lambda: verifier.check(read, host="cdn.example.com", path=PATH, now=now)) is None
