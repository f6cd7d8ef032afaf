"""The CMAF kernel's init segments: every box, and what libav makes of them."""

import io
import struct
from fractions import Fraction
from typing import Any

import av
import pytest

from streamgate.errors import StreamGateError
from streamgate.native.cmaf import init_segment
from tests.native.boxes import boxes, find

IDENTITY = (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
QUARTER_TURN = (0, 0x10000, 0, -0x10000, 0, 0, 0x5A0000, 0, 0x40000000)
# VP9 names its codec in the entry's type, so that libav needs no configuration record.
VIDEO_ENTRY = struct.pack(">I4s6xH16xHHII4xH32xHh", 86, b"vp09", 1, 160, 90, 0x480000, 0x480000, 1, 24, -1)
AUDIO_ENTRY = struct.pack(">I4s6xH8xHH4xI", 36, b"fLaC", 1, 2, 16, 48000 << 16)

DEFAULTS: dict[str, Any] = {
    "track_id": 1,
    "handler": "vide",
    "timescale": 30_000,
    "entry": VIDEO_ENTRY,
    "language": "und",
    "name": "Video",
    "width": 160.0,
    "height": 90.0,
    "matrix": IDENTITY,
    "brands": ("cmfc", "iso6"),
}


def make(**changes: Any) -> bytes:
    return init_segment(**{**DEFAULTS, **changes})


def tree(data: bytes) -> list[Any]:
    """Types of all boxes, each container followed by the list of what it holds."""
    found: list[Any] = []
    for kind, content in boxes(data):
        found.append(kind)
        if kind in ("moov", "trak", "mdia", "minf", "dinf", "stbl", "mvex"):
            found.append(tree(content))
    return found


def test_the_boxes_and_their_order() -> None:
    stbl = ["stsd", "stts", "stsc", "stsz", "stco"]
    assert tree(make()) == [
        "ftyp",
        "moov",
        [
            "mvhd",
            "trak",
            ["tkhd", "mdia", ["mdhd", "hdlr", "minf", ["vmhd", "dinf", ["dref"], "stbl", stbl]]],
            "mvex",
            ["trex"],
        ],
    ]


@pytest.mark.parametrize(
    ("handler", "header"), [("vide", "vmhd"), ("soun", "smhd"), ("text", "nmhd"), ("subt", "sthd"), ("meta", "nmhd")]
)
def test_the_media_header_follows_the_handler(handler: str, header: str) -> None:
    data = make(handler=handler)
    assert next(boxes(find(data, "moov", "trak", "mdia", "minf")))[0] == header
    assert find(data, "moov", "trak", "mdia", "hdlr")[8:12] == handler.encode()
    volume = struct.unpack_from(">H", find(data, "moov", "trak", "tkhd"), 36)[0]
    assert volume == (0x0100 if handler == "soun" else 0)


def test_what_the_boxes_say() -> None:
    data = make(track_id=9, matrix=QUARTER_TURN, width=160.5, name="Höhe\0cut", language="deu")
    assert find(data, "ftyp") == b"cmfc\0\0\0\0cmfciso6"
    mvhd = find(data, "moov", "mvhd")
    assert struct.unpack_from(">IIIII", mvhd) == (0, 0, 0, 30_000, 0)
    assert struct.unpack_from(">9i", mvhd, 36) == IDENTITY
    assert struct.unpack(">I", mvhd[-4:])[0] == 10
    tkhd = find(data, "moov", "trak", "tkhd")
    assert struct.unpack_from(">IIIIII", tkhd) == (7, 0, 0, 9, 0, 0)
    assert struct.unpack(">9iII", tkhd[-44:]) == (*QUARTER_TURN, 160 * 65536 + 32768, 90 * 65536)
    assert len(tkhd) == 84
    mdhd = find(data, "moov", "trak", "mdia", "mdhd")
    assert struct.unpack(">IIIIIHH", mdhd) == (0, 0, 0, 30_000, 0, 4 << 10 | 5 << 5 | 21, 0)
    assert find(data, "moov", "trak", "mdia", "hdlr")[24:] == "Höhe\0".encode()
    stbl = find(data, "moov", "trak", "mdia", "minf", "stbl")
    assert find(stbl, "stsd") == struct.pack(">II", 0, 1) + VIDEO_ENTRY
    lengths = {kind: len(content) for kind, content in boxes(stbl)}
    assert lengths == {"stsd": 94, "stts": 8, "stsc": 8, "stsz": 12, "stco": 8}
    assert find(data, "moov", "mvex", "trex") == struct.pack(">IIIIII", 0, 9, 1, 0, 0, 0)
    dref = find(data, "moov", "trak", "mdia", "minf", "dinf", "dref")
    assert dref == struct.pack(">IIIII", 0, 1, 12, int.from_bytes(b"url "), 1)


@pytest.mark.parametrize(
    ("language", "packed", "extended"),
    [
        ("eng", "eng", None),
        ("und", "und", None),
        ("en", "und", b"en"),
        ("pt-BR", "und", b"pt-BR"),
        ("ENG", "und", b"ENG"),
        ("", "und", None),
        ("e\0g", "und", None),
        ("franç", "und", None),
    ],
)
def test_languages(language: str, packed: str, extended: bytes | None) -> None:
    mdia = find(make(language=language), "moov", "trak", "mdia")
    bits = struct.unpack_from(">H", find(mdia, "mdhd"), 20)[0]
    assert "".join(chr((bits >> shift & 31) + 0x60) for shift in (10, 5, 0)) == packed
    elng = [content for kind, content in boxes(mdia) if kind == "elng"]
    assert elng == ([] if extended is None else [bytes(4) + extended + b"\0"])


def test_libav_reads_it() -> None:
    with av.open(io.BytesIO(make(language="fra", name="Film", matrix=QUARTER_TURN)), "r") as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("vp9", 160, 90)
        assert stream.time_base == Fraction(1, 30_000)
        assert stream.metadata["language"] == "fra"
        assert stream.metadata["handler_name"] == "Film"
    data = make(handler="soun", entry=AUDIO_ENTRY, width=0, height=0, timescale=48_000, track_id=77)
    with av.open(io.BytesIO(data), "r") as container:
        assert container.streams.audio[0].id == 77
        assert container.streams.audio[0].codec_context.sample_rate == 48_000


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"timescale": 0}, "source_malformed"),
        ({"entry": b""}, "source_malformed"),
        ({"entry": VIDEO_ENTRY + b"\0"}, "source_malformed"),
        ({"entry": VIDEO_ENTRY[:-1]}, "source_malformed"),
        ({"width": 65536.0}, "source_malformed"),
        ({"height": -1.0}, "source_malformed"),
        ({"height": float("nan")}, "source_malformed"),
        ({"track_id": 0}, "internal"),
        ({"brands": ()}, "internal"),
        ({"brands": ("cmfc", "iso66")}, "internal"),
        ({"handler": "v"}, "internal"),
    ],
)
def test_what_cannot_be_said(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(StreamGateError) as error:
        make(**changes)
    assert error.value.code == code


def test_the_largest_numbers() -> None:
    mvhd = find(make(track_id=0xFFFFFFFF), "moov", "mvhd")
    assert mvhd[-4:] == b"\xff" * 4
    tkhd = find(make(width=65535.99999999), "moov", "trak", "tkhd")
    assert struct.unpack_from(">I", tkhd, 76)[0] == 0xFFFFFFFF
