"""The access log: two formats, and what must not be in them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.native.accesslog import AccessLog

NOW = 1_795_000_000_123_456_789  # 2026-11-18
TRACE = b"00-" + b"ab" * 16 + b"-" + b"cd" * 8 + b"-01"
GIVEN: dict[str, Any] = {
    "method": b"GET", "path": b"/v/film/0.m4s", "route": b"segment", "status": 206, "sent": 1234, "duration": 1_234_567_890,
    "session": bytes(range(0xA0, 0xB0)), "address": bytes([192, 0, 2, 77]), "traceparent": TRACE, "user_agent": b'a "b" \xe9\\', "now": NOW,
}  # fmt: skip


def lines(*given: dict[str, Any], **options: Any) -> list[str]:
    blocks: list[bytes] = []
    log = AccessLog(blocks.append, **options)
    for each in given:
        log.add(**each)
    log.flush()
    return b"".join(blocks).decode("ascii").splitlines()


def test_json() -> None:
    [line] = lines(GIVEN)
    assert json.loads(line) == {
        "event": "request", "level": "info", "timestamp": "2026-11-18T11:06:40.123Z", "method": "GET",
        "path": "/t/~a0a1a2a3/v/film/0.m4s", "route": "segment", "status": 206, "bytes": 1234, "seconds": 1.234567,
        "client": "192.0.2.0", "trace_id": "ab" * 16, "span_id": "cd" * 8,
    }  # fmt: skip


def test_combined() -> None:
    [line] = lines(GIVEN, format="combined")
    assert line == (
        '192.0.2.0 - - [18/Nov/2026:11:06:40 +0000] "GET /t/~a0a1a2a3/v/film/0.m4s HTTP/1.1" 206 1234 "-" "a \\x22b\\x22 \\xe9\\x5c"'
    )
    [line] = lines({**GIVEN, "address": b"", "session": None, "user_agent": b""}, format="combined")
    assert line.startswith("- - - [") and '"GET /v/film/0.m4s HTTP/1.1"' in line and line.endswith('"-" "-"')


@pytest.mark.parametrize(
    "address, cut, whole",
    [
        (bytes([10, 1, 2, 3]), "10.1.2.0", "10.1.2.3"),
        (bytes.fromhex("20010db8000100020003000400050006"), "2001:db8:1::", "2001:db8:1:2:3:4:5:6"),
    ],
)
def test_addresses_are_cut(address: bytes, cut: str, whole: str) -> None:
    given = {**GIVEN, "address": address}
    assert json.loads(lines(given)[0])["client"] == cut
    assert json.loads(lines(given, whole_addresses=True)[0])["client"] == whole


def test_what_a_token_did_not_open() -> None:
    assert json.loads(lines({**GIVEN, "session": b""})[0])["path"] == "/t/~/v/film/0.m4s"
    assert json.loads(lines({**GIVEN, "session": None})[0])["path"] == "/v/film/0.m4s"


@pytest.mark.parametrize(
    "field", [b"", TRACE[:-1], TRACE.upper(), b"01" + TRACE[2:], TRACE.replace(b"-", b"_"), TRACE + b"-"]
)
def test_what_is_no_traceparent(field: bytes) -> None:
    assert "trace_id" not in json.loads(lines({**GIVEN, "traceparent": field})[0])


@pytest.mark.parametrize("sample, logged", [(0.0, 0), (0.25, 25), (1.0, 100)])
def test_samples_are_spread_evenly(sample: float, logged: int) -> None:
    blocks: list[bytes] = []
    log = AccessLog(blocks.append, sample=sample)
    told = [log.add(**GIVEN) for _ in range(100)]
    log.flush()
    assert sum(told) == logged == b"".join(blocks).count(b"\n")
    assert all(sum(told[n : n + 4]) == logged // 25 for n in range(0, 100, 4))


def test_blocks_hold_whole_lines() -> None:
    blocks: list[bytes] = []
    log = AccessLog(blocks.append, size=20_000)
    for n in range(1000):
        log.add(**{**GIVEN, "path": b"/" + b"x" * (n % 900)})
    log.flush()
    log.flush()
    assert len(blocks) > 10 and all(block.endswith(b"\n") and len(block) <= 20_000 for block in blocks)
    assert b"".join(blocks).count(b"\n") == 1000


def test_options_are_checked() -> None:
    for wrong in ({"format": "xml"}, {"sample": 1.5}, {"sample": -0.1}, {"size": 1000}):
        with pytest.raises(ValueError):
            AccessLog(print, **wrong)


text = st.binary(max_size=5000)


@given(text, text, text, st.integers(0, 2**62), st.binary(max_size=20), st.sampled_from(["json", "combined"]))
def test_nothing_ends_a_line_or_a_string(
    method: bytes, path: bytes, agent: bytes, number: int, session: bytes, form: str
) -> None:
    given = {
        **GIVEN,
        "method": method,
        "path": path,
        "user_agent": agent,
        "sent": number,
        "duration": number,
        "session": session,
    }
    [line] = lines(given, format=form, size=16384)
    if form == "json":
        told = json.loads(line)
        assert told["method"].encode("latin-1") == method[:32]
        assert told["path"].encode("latin-1") == b"/t/~" + session[:4].hex().encode() + path[:1024]
    else:
        assert line.isascii() and line.isprintable() and line.count('"') == 6
