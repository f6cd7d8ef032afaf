"""Which content coding a client gets."""

from __future__ import annotations

import gzip

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from edge.compression import CODINGS, encode, negotiate


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (None, "identity"),
        ("", "identity"),
        ("identity", "identity"),
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("GZIP", "gzip"),
        ("gzip, deflate", "gzip"),
        ("gzip, deflate, br, zstd", "br"),
        ("gzip, zstd", "zstd"),
        ("*", "br"),
        ("br;q=0, *", "zstd"),
        ("br;q=0.5, gzip;q=0.8", "gzip"),
        ("br; q=0.5 ,gzip ; q=0.500", "br"),
        ("gzip;q=0", "identity"),
        ("gzip;q=0.5, identity;q=1", "identity"),
        ("gzip;q=0.5, identity;q=0.5", "gzip"),
        ("identity;q=0", "identity"),
        ("deflate", "identity"),
        ("gzip;q=2", "identity"),
        ("gzip;q=nan", "identity"),
        ("gzip;q=0.1234", "identity"),
        ("gzip;level=9", "gzip"),
        (",,gzip,", "gzip"),
    ],
)
def test_negotiation(header: str | None, coding: str) -> None:
    assert negotiate(header) == coding


@given(st.text(st.sampled_from("gzipbrstd*;q=01.,ident y"), max_size=40))
def test_whatever_the_header(header: str) -> None:
    assert negotiate(header) in {*CODINGS, "identity"}


def test_decoders_of_others_read_it() -> None:
    data = b"#EXTM3U\n" * 500
    assert gzip.decompress(encode(data, "gzip")) == data
    assert brotli.decompress(encode(data, "br")) == data
    assert zstandard.ZstdDecompressor().decompress(encode(data, "zstd")) == data
    assert all(len(encode(data, coding)) < len(data) // 10 for coding in CODINGS)


def test_the_same_bytes_every_time() -> None:
    assert {encode(b"x" * 1000, coding) == encode(b"x" * 1000, coding) for coding in CODINGS} == {True}
    assert encode(b"x" * 1000, "gzip")[4:8] == bytes(4)
