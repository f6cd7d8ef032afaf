"""``python -m benchmarks tokens``: verifying Common Access Tokens that were never seen before, against PyPI cwt and @eyevinn/cat."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import Row, compare, interleave, pinned
from streamgate.access.keys import SharedKey
from streamgate.access.tokens import sign
from streamgate.native.cat import Verifier

NAME = "tokens"
CASE = "verify a fresh token"
# 225 characters is no length that base64url has.
LENGTH = 226
_PATH = "/v/big-buck-bunny/v540-3fa9c1d2e07b4a55/7.m4s"
_WEB = Path(__file__).resolve().parent.parent / "web"


def run(*, runs: int, count: int = 2000) -> Iterator[Row]:
    """All rows, each value out of ``count`` tokens."""
    key = SharedKey(
        b"site-eu-1.2", os.urandom(32), "https://auth.example.com/", ("site-eu-1",), ("iss", "exp", "cti", "aud")
    )
    tokens = fresh(key, count)
    core = max(os.sched_getaffinity(0))
    with pinned(core):
        pairs = interleave(ours(key, tokens), by_cwt(key, tokens), runs)
        yield compare(NAME, CASE, "CPU", "us", "PyPI cwt", pairs, goal=20, note=_note(tokens))
        with by_eyevinn(key, tokens, core) as theirs:
            pairs = interleave(ours(key, tokens), theirs, runs)
        yield compare(NAME, CASE, "CPU", "us", "npm @eyevinn/cat", pairs, goal=100)


def fresh(key: SharedKey, count: int) -> list[str]:
    """Tokens of five claims, each of a session of its own, each LENGTH characters long."""

    def make(issuer: str, session: bytes) -> str:
        expires = int(time.time()) + 14_400
        return sign(key, {1: issuer, 3: key.audience[0], 4: expires, 7: session, 312: {3: {1: "/v/big-buck-bunny/"}}})

    # The one claim whose length is free makes up the rest.
    while len(make(key.issuer, bytes(16))) < LENGTH:
        key = SharedKey(key.kid, key.secret, key.issuer + "x", key.audience, key.require)
    tokens = [make(key.issuer, os.urandom(16)) for _ in range(count)]
    if {len(token) for token in tokens} != {LENGTH}:
        raise RuntimeError(f"no token of {LENGTH} characters could be made")
    return tokens


def issuer_of(token: str) -> str:
    """The issuer that a token names."""
    from streamgate.native.cat import decode

    return str(decode(token)[3][1])


def ours(key: SharedKey, tokens: list[str]) -> Callable[[], float]:
    """Envelope, key, MAC and claims, and then time, method, path and network of the request."""
    known = SharedKey(key.kid, key.secret, issuer_of(tokens[0]), key.audience, key.require)
    verifier = Verifier([known.verifying()])
    now = int(time.time())

    def once() -> None:
        for token in tokens:
            verifier.check(verifier.read(token), host="cdn.example.com", path=_PATH, now=now)

    return _cpu(once, len(tokens))


def by_cwt(key: SharedKey, tokens: list[str]) -> Callable[[], float]:
    """The MAC, exp and nbf; what the other claims say it leaves to its caller."""
    import cwt

    theirs = cwt.COSEKey.from_symmetric_key(key=key.secret, alg="HS256", kid=key.kid)
    decoder = cwt.CWT.new()

    def once() -> None:
        for token in tokens:
            decoder.decode(urlsafe_b64decode(token + "=" * (-len(token) % 4)), keys=[theirs])

    return _cpu(once, len(tokens))


@contextmanager
def by_eyevinn(key: SharedKey, tokens: list[str], core: int) -> Iterator[Callable[[], float]]:
    """The MAC, issuer, audience, exp, nbf and catu, in a Node.js of its own that has warmed up."""
    node = shutil.which("node", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    if node is None or not (_WEB / "node_modules/@eyevinn/cat").is_dir():
        raise RuntimeError("@eyevinn/cat is missing: make setup")
    told = {
        "key": key.secret.hex(), "kid": key.kid.decode(), "issuer": issuer_of(tokens[0]), "audience": key.audience,
        "url": f"https://cdn.example.com{_PATH}", "tokens": tokens,
    }  # fmt: skip
    script = Path(__file__).with_name("peers") / "eyevinn_cat.mjs"
    command = ["taskset", "-c", str(core), node, str(script), str(_WEB)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(told) + "\n")

        def once() -> float:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                raise RuntimeError("@eyevinn/cat refused a token")
            return float(answer)

        try:
            yield once
        finally:
            process.stdin.close()


def _cpu(once: Callable[[], None], count: int) -> Callable[[], float]:
    """A measurement of ``once``: microseconds of CPU time for each of ``count`` tokens."""

    def measured() -> float:
        began = time.process_time_ns()
        once()
        return (time.process_time_ns() - began) / 1000 / count

    return measured


def _note(tokens: list[str]) -> str:
    return (
        f"{len(tokens)} tokens of {LENGTH} characters and five claims (iss, aud, exp, cti, catu), none seen twice in a run; "
        "ours also looks at method, path and network, and is called through Python as the peer is"
    )
