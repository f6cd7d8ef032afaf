"""Bad bytes: every parser of sample entries is bounded and fails with a code; and real files, when there are any."""

from __future__ import annotations

import os
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.errors import StreamGateError
from streamgate.media.codecs import describe, wants_first_sample
from streamgate.media.codecs.av1 import sequence_colour
from streamgate.media.codecs.bits import Bits
from streamgate.media.codecs.h264 import sps_colour as h264_colour
from streamgate.media.codecs.hevc import sps_colour as hevc_colour
from streamgate.media.codecs.sbr import ends_with_sbr
from tests.media_factory import make

from .sample_entries import audio, box, entries, esds, first_samples, hvcc, mp4a, nclx, video

CODES = {"source_malformed", "source_encrypted", "codec_unsupported"}

SPS = bytes.fromhex("674d400beca146fc90800000030080000019078a14cb")
RECORD = bytes.fromhex("014d400bffe1") + len(SPS).to_bytes(2) + SPS + bytes.fromhex("01000468ce0fc8")
HEVC_SPS = bytes.fromhex("42010101600000030090000003000003001ea0142061f26595912930b9a020000003002000000303212200")
HEVC_SET = b"\xa1\0\1" + len(HEVC_SPS).to_bytes(2) + HEVC_SPS

SEEDS = [
    ("vide", video(b"avc1", box(b"avcC", RECORD), nclx(1, 1, 1), box(b"pasp", bytes(8)))),
    ("vide", video(b"avc3", box(b"avcC", RECORD))),
    ("vide", video(b"hev1", box(b"hvcC", hvcc(1, "900000000000", flags=6 << 28)[8:-1] + b"\1" + HEVC_SET))),
    ("vide", video(b"av01", box(b"av1C", bytes.fromhex("81004c000a0b00000004153d9bfc0bfcbe0210")))),
    ("vide", video(b"vp09", box(b"vpcC", bytes.fromhex("01000000000a820202020000")))),
    ("soun", mp4a("131056e598")),
    ("soun", mp4a("118004c844002000880d4c61766336322e32382e31303256e500")),
    ("soun", audio(b"mp4a", box(b"wave", esds("1210")), version=1, extra=bytes(16))),
    ("soun", audio(b"Opus", box(b"dOps", bytes.fromhex("0002013800 00bb800000 00")))),
    ("soun", audio(b"fLaC", box(b"dfLa", bytes(4) + b"\x80\0\0\x22" + bytes(10) + b"\x0b\xb8\x02\xf0" + bytes(20)))),
    ("soun", audio(b"ac-3", box(b"dac3", bytes.fromhex("103d60")))),
    ("soun", audio(b"ec-3", box(b"dec3", bytes.fromhex("0c00200f00")))),
    ("text", box(b"tx3g", bytes(30))),
]


def probe(entry: bytes, handler: str, first: bytes) -> None:
    try:
        assert 0 <= wants_first_sample(entry) <= 1 << 16
    except StreamGateError as error:
        assert error.code in CODES
    try:
        codec = describe(entry, handler=handler, first_sample=first, timescale=48000, delta=2048)
    except StreamGateError as error:
        assert error.code in CODES
    else:
        assert codec.string.isprintable()
        # MP3 is offered for players that are no browser, with a caveat.
        assert codec.playable is (codec.problem is None or codec.family == "mp3")
        # What is given back can be read again, and is the same.
        again = describe(codec.entry, handler=handler, first_sample=first, timescale=48000, delta=2048)
        assert again.string == codec.string and again.entry == codec.entry


@pytest.mark.parametrize(("handler", "entry"), SEEDS)
def test_seeds_are_good(handler: str, entry: bytes) -> None:
    assert describe(entry, handler=handler).entry


@given(st.sampled_from(SEEDS), st.data(), st.binary(max_size=64))
def test_mutated_entries(seed: tuple[str, bytes], data: st.DataObject, first: bytes) -> None:
    handler, entry = seed
    changed = bytearray(entry)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(8, len(entry) - 1))] = data.draw(st.integers(0, 255))
    probe(bytes(changed), handler, first)


@given(st.sampled_from(SEEDS), st.data())
def test_cut_entries(seed: tuple[str, bytes], data: st.DataObject) -> None:
    handler, entry = seed
    cut = entry[: data.draw(st.integers(0, len(entry) - 1))]
    probe(cut, handler, b"")
    # Cut, with a size that says so.
    probe(len(cut).to_bytes(4) + cut[4:], handler, b"")


@given(st.sampled_from([entry[4:8] for _, entry in SEEDS] + [b".mp3", b"hvc1", b"wvtt"]), st.binary(max_size=200))
def test_random_entries(kind: bytes, payload: bytes) -> None:
    for handler in ("vide", "soun", "text"):
        probe(box(kind, payload), handler, payload)


@given(st.binary(max_size=120))
def test_random_bitstreams(data: bytes) -> None:
    for colour in (h264_colour, hevc_colour, sequence_colour):
        found = colour(data)
        assert found is None or 0 <= found.transfer <= 255
    assert ends_with_sbr(data) in (True, False)


@given(st.binary(min_size=1, max_size=20), st.data())
def test_bits_are_those_of_the_number(data: bytes, choice: st.DataObject) -> None:
    bits = Bits(data)
    text = ""
    while bits.left:
        count = choice.draw(st.integers(1, min(bits.left, 40)))
        text += f"{bits.read(count):0{count}b}"
    assert int(text, 2) == int.from_bytes(data)
    with pytest.raises(StreamGateError):
        bits.read(1)


MADE = "made.mp4"


def _files() -> list[str]:
    folder = os.environ.get("STREAMGATE_MEDIA")
    real = (p.name for p in Path(folder).iterdir() if p.suffix in (".mp4", ".mov", ".m4a")) if folder else ()
    return [MADE, *sorted(real)]


PROFILES = {"Main": "4D", "High": "64", "High 4:4:4 Predictive": "F4", "LC": "2", "HE-AAC": "5", "HE-AACv2": "29"}


@pytest.mark.parametrize("name", _files())
def test_libav_says_the_same(name: str, tmp_path: Path) -> None:
    """libav names the same profiles, sizes, rates and channels."""
    path = make(tmp_path / MADE, seconds=0.2) if name == MADE else Path(os.environ["STREAMGATE_MEDIA"]) / name
    firsts = first_samples(path)
    with av.open(str(path)) as source:
        for (handler, entry), stream, first in zip(entries(path), source.streams, firsts, strict=True):
            codec = describe(entry, handler=handler, first_sample=first[: wants_first_sample(entry)])
            if codec.family == "h264":
                assert codec.string[5:7] == PROFILES[str(stream.profile)]
            elif codec.family == "aac":
                assert codec.string.removeprefix("mp4a.40.") == PROFILES[str(stream.profile)]
            if isinstance(stream, av.VideoStream):
                assert (codec.width, codec.height) == (stream.width, stream.height)
            if isinstance(stream, av.AudioStream):
                assert (codec.sample_rate, codec.channels) == (stream.sample_rate, stream.channels)
