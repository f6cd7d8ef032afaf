"""The parser of request heads: strict, incremental, bounded; and the fields that select a representation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import conditional, ranges
from streamgate.native.http1 import names_tag, parse_head, select_range

LINE = b"GET /v/a/1.m4s HTTP/1.1\r\n"
HEAD = LINE + b"Host: edge\r\n"
UNFINISHED: tuple[str, dict[str, object]] = ("incomplete", {})


def verdict(data: bytes, **limits: int) -> str:
    return parse_head(data, **limits)[0]


def test_what_is_read() -> None:
    head = (
        b'GET /t/abc/v/a/1.m4s?CMCD=br%3D1 HTTP/1.1\r\nhOST: edge:80\r\nRange:bytes=0-1 \t\r\nIf-None-Match: "a"\r\n'
        b'If-Range: "b"\r\nAccept-Encoding: br\r\nOrigin: null\r\nCookie: a=b\r\nCTA-Common-Access-Token: tok\r\n'
        b"traceparent: 00-a\r\nUser-Agent: x y\r\nX-Empty:\r\nConnection: CLOSE\r\nCMCD-Object: br=1\r\n"
        b"cmcd-object: br=2\r\nCMCD-Request: bl=1\r\nCMCD-Status: bs\r\nCMCD-Session:\r\n\r\n"
    )
    found, fields = parse_head(head + b"GET")
    assert found == "plain"
    assert fields == {
        "size": len(head), "method": "GET", "close": True, "verb": b"GET", "target": b"/t/abc/v/a/1.m4s?CMCD=br%3D1",
        "path": b"/t/abc/v/a/1.m4s", "query": b"CMCD=br%3D1", "host": b"edge:80", "range": b"bytes=0-1",
        "if-none-match": b'"a"', "if-range": b'"b"', "accept-encoding": b"br", "origin": b"null", "cookie": b"a=b",
        "cta-common-access-token": b"tok", "forwarded": False, "x-forwarded-for": None,
        "x-forwarded-proto": None, "traceparent": b"00-a", "user-agent": b"x y",
        "cmcd-object": b"br=1", "cmcd-request": b"bl=1", "cmcd-session": b"", "cmcd-status": b"bs",
    }  # fmt: skip


def test_absent_and_empty_are_different() -> None:
    fields = parse_head(HEAD + b"Range:\r\n\r\n")[1]
    assert fields["range"] == b"" and fields["if-range"] is None and fields["query"] is None
    assert parse_head(b"GET /? HTTP/1.1\r\nHost:\r\n\r\n")[1]["query"] == b""


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
        LINE + b"\r\n",
        LINE + b"Host: a/b\r\n\r\n",
        LINE + b"Host: a b\r\n\r\n",
        HEAD + b"If-Match: *\r\n\r\n",
        HEAD + b"Expect: 100-continue\r\n\r\n",
        HEAD + b"Range: bytes=0-1\r\nRange: bytes=0-1\r\n\r\n",
        HEAD + b"If-None-Match: a\r\nif-none-match: b\r\n\r\n",
        HEAD + b'If-None-Match: "\xe9"\r\n\r\n',
        HEAD + b"Cookie: a\r\nCookie: b\r\n\r\n",
    ],
)
def test_whole_heads_for_others(head: bytes) -> None:
    found, fields = parse_head(head)
    assert found == "other" and fields["size"] == len(head)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        HEAD + b"Content-Length: 0\r\n\r\n",
        HEAD + b"Content-Length: 123456\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
        HEAD + b"Transfer-Encoding: gzip , Chunked\r\n\r\n",
        HEAD + b"Upgrade: websocket\r\n\r\n",
        HEAD + b"Connection: upgrade\r\n\r\n",
        HEAD + b"Connection: keep-alive, close\r\n\r\n",
    ],
)
def test_what_is_followed_by_more_than_heads(head: bytes) -> None:
    assert verdict(head) == "body"


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        HEAD + b"Content-Length: 4\r\nContent-Length: 4\r\n",
        HEAD + b"Content-Length: 4, 4\r\n",
        HEAD + b"Content-Length:\r\n",
        HEAD + b"Content-Length: +4\r\n",
        HEAD + b"Content-Length: 0x4\r\n",
        HEAD + b"Content-Length: " + b"9" * 19 + b"\r\n",
        HEAD + b"Content-Length : 4\r\n",
        HEAD + b"Transfer-Encoding: xchunked\r\n",
        HEAD + b"Transfer-Encoding: chunked, identity\r\n",
        HEAD + b"Transfer-Encoding: chunked, chunked\r\n",
        HEAD + b"Transfer-Encoding: chunked,\r\n",
        HEAD + b"Transfer-Encoding: chunked;q=1\r\n",
        HEAD + b"Transfer-Encoding:\r\n",
        HEAD + b"Transfer-Encoding: gzip\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        HEAD + b"Transfer-Encoding: \x0bchunked\r\n",
        HEAD + b"Host: b\r\n",
        HEAD + b"X: a\r\n b\r\n",
        HEAD + b"X: a\r\n\tb\r\n",
        LINE + b" Host: a\r\n",
        HEAD + b"X: a\n",
        HEAD + b"X: a\rb",
        HEAD + b"X: a\0",
        HEAD + b"X: a\x7f",
        HEAD + b"X\t: a",
        HEAD + b"X y: a",
        HEAD + b": a",
        HEAD + b"X\r\n",
        HEAD + b"X\0: a",
        HEAD + b"X\xe9: a",
        HEAD + b"\n",
        HEAD + b"\rX",
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1 \r\n",
        b"GET  / HTTP/1.1\r\n",
        b"GET\t/ HTTP/1.1\r\n",
        b"GET / http/1.1\r\n",
        b"GET / HTTP/11\r\n",
        b"GET / HTTP/1.\r\n",
        b"GET /\r\n",
        b"GET /\0 HTTP/1.1\r\n",
        b" GET / HTTP/1.1\r\n",
        b"\nGET / HTTP/1.1\r\n",
        b"G(T / HTTP/1.1\r\n",
        b"\x16\x03\x01",
    ],
)
def test_faults(head: bytes) -> None:
    """Each is seen as soon as its last byte is there, whatever follows, and no byte earlier than it is one."""
    assert parse_head(head) == ("malformed", {}) == parse_head(head + b"\r\n\r\n")
    assert "plain" not in [verdict(head[:n]) for n in range(len(head))]


def test_limits() -> None:
    short = HEAD + b"X: " + b"a" * 90 + b"\r\n\r\n"
    assert verdict(short, field=95) == "plain" and verdict(short, field=94) == "too large"
    assert verdict(short, head=len(short)) == "plain" and verdict(short, head=len(short) - 1) == "too large"
    assert verdict(short, line=23) == "plain" and verdict(short, line=10) == "too large"
    assert verdict(short, fields=2) == "plain" and verdict(short, fields=1) == "too large"
    # Without an end in sight, too.
    assert verdict(b"GET /" + b"a" * 100, line=100) == "too large"
    assert verdict(b"G" * 101, line=100) == "too large"
    assert verdict(HEAD + b"X: " + b"a" * 100, field=100) == "too large"
    assert verdict(HEAD + b"X" * 101, field=100) == "too large"
    assert verdict(HEAD + b"X: a\r\n" * 20, head=100) == "too large"


GOOD = HEAD + b"User-Agent: a\r\nRange: bytes=0-99\r\nAccept: */*\r\nCookie: \xe9\r\n\r\n"


def test_byte_by_byte() -> None:
    assert [verdict(GOOD[:n]) for n in range(len(GOOD))] == ["incomplete"] * len(GOOD)
    assert verdict(GOOD) == verdict(GOOD + b"\0") == "plain"


@given(st.binary(max_size=200), st.integers(0, len(GOOD)), st.integers(0, 20))
def test_a_verdict_never_changes(noise: bytes, at: int, cut: int) -> None:
    """What is complete or wrong stays so, whatever comes behind it."""
    head = GOOD[:at] + noise + GOOD[at + cut :]
    verdicts = [parse_head(head[:n]) for n in range(len(head) + 1)]
    final = next((n for n, found in enumerate(verdicts) if found != UNFINISHED), None)
    if final is not None:
        assert all(found == verdicts[final] for found in verdicts[final:])
        assert verdicts[final][1].get("size", final) == final


@given(st.lists(st.sampled_from([b"GET", b" ", b"/", b"HTTP/1.1", b"\r\n", b"\n", b"\r", b":", b"Host", b"a", b"\0",
                                 b"Content-Length", b"Transfer-Encoding", b"chunked", b"4", b",", b"\t", b"\xff"]), max_size=30))  # fmt: skip
def test_what_is_plain_has_one_reading(parts: list[bytes]) -> None:
    """A head that counts is what a simple reader of RFC 9112 takes it for."""
    head = HEAD + b"".join(parts)
    found, fields = parse_head(head)
    if found in ("plain", "other"):
        size = fields["size"]
        assert isinstance(size, int)
        lines = head[: size - 4].split(b"\r\n")[1:]
        names = [line.partition(b":")[0].lower() for line in lines]
        assert b"content-length" not in names and b"transfer-encoding" not in names and names.count(b"host") == 1
        assert all(name and not name.strip(b"\t \r\n\0") == b"" for name in names)
        assert not any(c in head[:size].replace(b"\r\n", b"") for c in (b"\r", b"\n", b"\0"))


SPEC = st.sampled_from([*"0123456789-,= \t", "bytes", "bytes=", "Bytes", "10", "99999999999999999999", "00"])


@given(st.lists(SPEC, max_size=12).map("".join), st.sampled_from([0, 1, 10, 1000, 10**12]))
def test_ranges_as_the_other_path_reads_them(field: str, size: int) -> None:
    try:
        wanted = ranges.select(field.strip(" \t"), size)
    except ranges.Unsatisfiable:
        assert select_range(field.strip(" \t").encode(), size)[0] == "unsatisfiable"
        return
    found, first, end = select_range(field.strip(" \t").encode(), size)
    assert ((first, end) if found == "part" else None) == wanted
    if wanted is None:
        assert (found, first, end) == ("whole", 0, size)


ETAGS = st.lists(
    st.sampled_from(['"a"', 'W/"a"', '"b"', '"', "a", "W/", "*", ",", " ", "\t", "!", '"a;br"']), max_size=8
)


@given(ETAGS.map("".join), st.sampled_from(['"a"', '"a;br"', '""']))
def test_tags_as_the_other_path_reads_them(field: str, tag: str) -> None:
    field = field.strip(" \t")
    wanted = conditional.evaluate({"If-None-Match": field}, "GET", tag) == "not modified"
    assert names_tag(field.encode(), tag.encode()) == wanted
