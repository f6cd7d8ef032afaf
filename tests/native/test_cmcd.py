"""What players report is put down as it came, in columns that nothing can break."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.native.cmcd import COLUMNS, CmcdLog

GIVEN: dict[str, Any] = {
    "path": b"/v/film/v540-0123456789abcdef/0.m4s", "status": 206, "sent": 1234, "duration": 1_234_567, "tier": b"disk",
    "session": bytes(range(0xA0, 0xB0)), "query": b"a=b&CMCD=br%3D1&c", "now": 1_795_000_000_123_456_789,
}  # fmt: skip


def entries(*given: dict[str, Any], **options: Any) -> list[dict[str, bytes]]:
    blocks: list[bytes] = []
    log = CmcdLog(blocks.append, **options)
    for each in given:
        log.add(**each)
    log.flush()
    lines = b"".join(blocks).split(b"\n")
    assert lines.pop() == b""
    return [dict(zip(COLUMNS, line.split(b"\t"), strict=True)) for line in lines]


def test_an_entry() -> None:
    fields = (b"br=1", b'bl=2,nor="a\tb"', b"sid=\xe9", b"")
    assert entries({**GIVEN, "fields": fields}) == [
        {
            "now": b"1795000000123456789", "path": GIVEN["path"], "session": b"a0a1a2a3", "status": b"206", "bytes": b"1234",
            "duration": b"1234", "tier": b"disk", "query": b"br%3D1", "object": b"br=1", "request": b'bl=2,nor="a b"',
            "session_field": b"sid=\xe9", "status_field": b"",
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (b"CMCD=a", b"a"), (b"CMCD=&CMCD=b", b"b"), (b"x=CMCD=a", None), (b"cmcd=a", None), (b"XCMCD=a", None),
        (b"CMCD", None), (b"&&CMCD=a=b&", b"a=b"), (b"", None), (b"CMCD=" + b"a" * 5000, b"a" * 4097),
    ],
)  # fmt: skip
def test_the_parameter(query: bytes, found: bytes | None) -> None:
    """The first that says something; without one, and without fields, there is no entry."""
    assert [entry["query"] for entry in entries({**GIVEN, "query": query})] == ([] if found is None else [found])


def test_bounds_and_the_sample() -> None:
    huge = {**GIVEN, "path": b"/" * 5000, "query": b"CMCD=" + b"q" * 9000, "fields": (b"f" * 9000,) * 4}
    found = entries(*[huge] * 50)
    assert len(found) == 50 and {len(entry["object"]) for entry in found} == {4097}
    assert len(found[0]["path"]) == 1024
    assert len(entries(*[GIVEN] * 100, sample=0.25)) == 25
    assert entries(GIVEN, sample=0) == []
    for wrong in ({"sample": -1.0}, {"sample": 2.0}, {"size": 1000}):
        with pytest.raises(ValueError):
            CmcdLog(print, **wrong)
    with pytest.raises(ValueError):
        CmcdLog(print).add(**{**GIVEN, "fields": (b"a",)})


def test_full_buffers_are_handed_on() -> None:
    blocks: list[bytes] = []
    log = CmcdLog(blocks.append)
    for _ in range(2000):
        assert log.add(**GIVEN)
    assert len(blocks) > 3 and all(block.endswith(b"\n") and len(block) <= 65536 for block in blocks)
    log.flush()
    assert b"".join(blocks).count(b"\n") == 2000


_raw = st.binary(max_size=200).map(lambda raw: raw.translate(None, b"\r\n\0"))


@given(_raw, st.tuples(_raw, _raw, _raw, _raw), _raw)
def test_anything_stays_in_its_column(query: bytes, fields: tuple[bytes, bytes, bytes, bytes], path: bytes) -> None:
    found = entries({**GIVEN, "query": b"CMCD=x" + query, "fields": fields, "path": path})
    assert [found[0][name] for name in ("object", "request", "session_field", "status_field")] == [
        bytes(max(byte, 32) for byte in field) for field in fields
    ]
