"""Byte ranges against a model that is RFC 9110 section 14 written the slow way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.ranges import Unsatisfiable, select


def outcome(header: str | None, size: int) -> tuple[int, int] | str | None:
    try:
        return select(header, size)
    except Unsatisfiable:
        return "416"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-0", (0, 1)),
        ("bytes=0-99", (0, 100)),
        ("bytes=0-1000", (0, 100)),
        ("bytes=99-", (99, 100)),
        ("bytes=-1", (99, 100)),
        ("bytes=-1000", (0, 100)),
        ("Bytes=5-6", (5, 7)),
        ("bytes= 5-6 ", (5, 7)),
        ("bytes=,5-6,", (5, 7)),
        ("bytes=005-006", (5, 7)),
        (f"bytes=0-{'9' * 5000}", (0, 100)),
        (f"bytes={'9' * 5000}-", "416"),
        ("bytes=100-", "416"),
        ("bytes=100-200", "416"),
        ("bytes=-0", "416"),
        ("bytes=6-5", None),
        ("bytes=5-6,8-9", None),
        ("bytes=", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=5", None),
        ("bytes=--5", None),
        ("bytes=5 - 6", None),
        ("bytes=\u0665-\u0666", None),
        ("bytes=+5-6", None),
        ("items=5-6", None),
        ("bytes 5-6", None),
        ("", None),
    ],
)
def test_of_hundred_bytes(header: str | None, expected: tuple[int, int] | str | None) -> None:
    assert outcome(header, 100) == expected


@pytest.mark.parametrize(("header", "expected"), [("bytes=0-", "416"), ("bytes=-5", None), ("bytes=-0", "416")])
def test_of_nothing(header: str, expected: str | None) -> None:
    assert outcome(header, 0) == expected


def model(first: int | None, last: int | None, size: int) -> tuple[int, int] | str | None:
    """The positions that a spec names, one by one."""
    if first is None:
        assert last is not None
        wanted = range(max(0, size - last), size)
    elif last is not None and last < first:
        return None
    else:
        wanted = range(first, size if last is None else min(size, last + 1))
    positions = [p for p in range(size) if p in wanted]
    return (positions[0], positions[-1] + 1) if positions else "416"


numbers = st.integers(0, 60)


@given(
    st.one_of(st.tuples(numbers, st.none()), st.tuples(st.none(), numbers), st.tuples(numbers, numbers)),
    st.integers(1, 50),
)
def test_against_the_model(spec: tuple[int | None, int | None], size: int) -> None:
    first, last = spec
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    assert outcome(header, size) == model(first, last, size)


@given(st.text(st.sampled_from("bytes=0123456789-, \txé"), max_size=30), st.integers(0, 50))
def test_whatever_the_header(header: str, size: int) -> None:
    found = outcome(header, size)
    if isinstance(found, tuple):
        assert 0 <= found[0] < found[1] <= size
    else:
        assert found in (None, "416")
