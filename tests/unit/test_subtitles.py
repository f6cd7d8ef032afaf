"""Subtitles: what is read from WebVTT, SubRip, tx3g and wvtt, and what is written."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.errors import StreamGateError
from streamgate.media import subtitles
from streamgate.media.subtitles import Cue, parse_srt, parse_tx3g, parse_vtt, parse_wvtt, write_segment, write_whole


def plain(cues: list[Cue]) -> list[tuple[int, int, str]]:
    return [(cue.start, cue.end, cue.text) for cue in cues]


def code_of(parse, data) -> str:  # type: ignore[no-untyped-def]
    with pytest.raises(StreamGateError) as caught:
        parse(data)
    return caught.value.code


VTT = """\ufeffWEBVTT - made by hand
Kind: captions

STYLE
::cue(b) { color: red }

REGION
id:top
lines:3

NOTE
A comment

first
00:01.000 --> 00:02.500 line:0 position:10%,line-left align:middle bogus:1 region:top
One &amp; <b>two</b>
second line

01:00:00.000 --> 01:00:01.000
<v Roger>Late <01:00:00.500>inside

STYLE
::cue(i) { color: blue }

00:05.000 --> 00:05.000
no time

00:06.000 --> 00:07.000

00:10.x --> 00:11.000
bad time
NOTE not a comment here
00:03.000 --> 00:04.000
no empty line before
"""


class TestVtt:
    def test_reads(self) -> None:
        cues = parse_vtt(VTT.encode())
        assert plain(cues) == [
            (1000, 2500, "One &amp; <b>two</b>\nsecond line"),
            (3000, 4000, "no empty line before"),
            (3_600_000, 3_601_000, "<v Roger>Late <01:00:00.500>inside"),
        ]
        assert cues[0].identifier == "first"
        assert cues[0].settings == "line:0 position:10%,line-left align:center region:top"
        assert cues[0].styles == "STYLE\n::cue(b) { color: red }\n\nREGION\nid:top\nlines:3\n\n"

    @pytest.mark.parametrize("ending", ["\r\n", "\r"])
    def test_line_endings(self, ending: str) -> None:
        assert parse_vtt(VTT.replace("\n", ending).encode()) == parse_vtt(VTT.encode())

    def test_cue_right_behind_the_signature(self) -> None:
        assert plain(parse_vtt(b"WEBVTT\n00:00.000 --> 00:01.000\nHi")) == [(0, 1000, "Hi")]

    def test_metadata_header(self) -> None:
        data = b"WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:900000,LOCAL:00:00:00.000\n\n00:00.000 --> 00:01.000\nHi\n"
        assert plain(parse_vtt(data)) == [(0, 1000, "Hi")]

    def test_no_cues(self) -> None:
        assert parse_vtt(b"WEBVTT") == []
        assert parse_vtt(b"WEBVTT\n\nNOTE nothing\n") == []

    @pytest.mark.parametrize(
        "data", [b"", b"WEBVTTX\n", b"00:01.000 --> 00:02.000\n", b"WEBVTT\n\n\xff\n", b"WEBVTT\n\n1 --> 2\nx\n"]
    )
    def test_refuses(self, data: bytes) -> None:
        assert code_of(parse_vtt, data) == "subtitle_malformed"

    def test_limits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert code_of(parse_vtt, b"WEBVTT" + bytes(subtitles.MAX_BYTES)) == "subtitle_malformed"
        monkeypatch.setattr(subtitles.cue, "MAX_CUES", 2)
        three = b"WEBVTT\n\n" + b"00:00.000 --> 00:01.000\nx\n\n" * 3
        assert code_of(parse_vtt, three) == "subtitle_malformed"

    @given(st.binary(max_size=300))
    def test_random_bytes(self, data: bytes) -> None:
        try:
            cues = parse_vtt(b"WEBVTT\n\n00:00.000 --> 00:01.000\nx\n\n" + data)
        except StreamGateError as error:
            assert error.code == "subtitle_malformed"
        else:
            assert cues[0].end > cues[0].start


class TestWriting:
    cues = (Cue(0, 1500, "a"), Cue(1000, 9000, "long", "line:0", "id 1"), Cue(4000, 5000, "<b>b</b>"))

    def test_segment_has_every_cue_that_touches_it(self) -> None:
        assert write_segment(self.cues, start_ms=4000, end_ms=8000, mpegts=900_000).decode() == (
            "WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:900000,LOCAL:00:00:00.000\n\n"
            "id 1\n00:00:01.000 --> 00:00:09.000 line:0\nlong\n\n"
            "00:00:04.000 --> 00:00:05.000\n<b>b</b>\n\n"
        )

    def test_edges_are_half_open(self) -> None:
        cues = [Cue(1000, 2000, "x")]
        shown = [b"x" in write_segment(cues, start_ms=a, end_ms=a + 1000, mpegts=0)[50:] for a in (0, 1000, 2000)]
        assert shown == [False, True, False]

    def test_empty_segment(self) -> None:
        data = write_segment(self.cues, start_ms=20_000, end_ms=24_000, mpegts=(1 << 33) + 5)
        assert data == b"WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:5,LOCAL:00:00:00.000\n\n"
        assert parse_vtt(data) == []

    def test_whole_with_shift(self) -> None:
        cues = [Cue(500, 1500, "now <00:00:01.000>then"), Cue(0, 500, "gone")]
        earlier = write_whole(cues, shift_ms=-1000)
        assert earlier == b"WEBVTT\n\n00:00:00.000 --> 00:00:00.500\nnow <00:00:00.000>then\n\n"
        later = parse_vtt(write_whole(cues, shift_ms=250))
        assert plain(later) == [(250, 750, "gone"), (750, 1750, "now <00:00:01.250>then")]

    def test_styles_once_and_read_again(self) -> None:
        cues = parse_vtt(VTT.encode())
        whole = write_whole(cues)
        assert whole.count(b"::cue(b)") == whole.count(b"REGION") == 1
        assert parse_vtt(whole) == cues
        assert b"::cue(b)" in write_segment(cues[1:], start_ms=3000, end_ms=4000, mpegts=0)

    @given(
        st.lists(
            st.tuples(st.integers(0, 10**8), st.integers(1, 10**7), st.text(st.characters(codec="utf-8"), max_size=20)),
            max_size=5,
        )
    )
    def test_plain_text_survives(self, items: list[tuple[int, int, str]]) -> None:
        samples = [(start, start + length, tx3g(text.encode())) for start, length, text in items]
        cues = parse_tx3g(samples)
        assert parse_vtt(write_whole(cues)) == cues


SRT = """1
00:00:01,000 --> 00:00:02,500
<i>Fish</i> & <font color="#ff0000">chips</font> < 3 > 2 &amp; x

2
00:00:03,000 --> 00:00:04,000 X1:100 X2:200 Y1:1 Y2:2
{\\an8}Above<br/>it <B>all

after an empty line

3
0:0:5.5 --> 0:0:6
42

4
00:00:09,000 --> 00:00:08,000
backwards

5
00:00:aa --> 00:00:10,000
kept as text of nobody
6
00:00:11,000 --> 00:00:12,000
a <u>b <i>c</u> d</i> {\\pos(1,2)}e
"""


class TestSrt:
    def test_reads(self) -> None:
        cues = parse_srt(SRT.encode())
        assert plain(cues) == [
            (1000, 2500, "<i>Fish</i> &amp; chips &lt; 3 &gt; 2 &amp; x"),
            (3000, 4000, "Above\nit <b>all\nafter an empty line</b>"),
            (5005, 6000, "42"),
            (11_000, 12_000, "a <u>b <i>c</i></u> d e"),
        ]
        assert [cue.settings for cue in cues] == ["", "line:0", "", ""]

    @pytest.mark.parametrize(
        ("place", "settings"),
        [(1, "align:left"), (2, ""), (3, "align:right"), (5, "line:50%"), (9, "line:0 align:right")],
    )
    def test_places(self, place: int, settings: str) -> None:
        data = f"00:00:01,000 --> 00:00:02,000\n{{\\an{place}}}x\n"
        assert [(cue.text, cue.settings) for cue in parse_srt(data.encode())] == [("x", settings)]

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
    @pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
    def test_encodings(self, encoding: str, ending: str) -> None:
        text = "1\n00:00:01,000 --> 00:00:02,000\nÇa va – “été”\n".replace("\n", ending)
        assert plain(parse_srt(text.encode(encoding))) == [(1000, 2000, "Ça va – “été”")]

    def test_arrow_in_text(self) -> None:
        cues = parse_srt(b"1\n00:00:01,000 --> 00:00:02,000\nA --> B\n")
        assert plain(cues) == [(1000, 2000, "A --&gt; B")]
        assert plain(parse_vtt(write_whole(cues))) == plain(cues)

    def test_refuses_what_is_none(self) -> None:
        assert code_of(parse_srt, b"WEBVTT\n\nhello\n") == "subtitle_malformed"
        assert parse_srt(b"\n \n") == []

    @pytest.mark.parametrize("piece", [b"<", b"<a", b"a", b"{\\", b"{\\an8", b"0", b" ", b"&amp", b"-->", b"0:"])
    def test_long_lines_are_read_in_linear_time(self, piece: bytes) -> None:
        line = piece * (200_000 // len(piece))
        cues = parse_srt(b"00:00:01,000 --> 00:00:02,000\n<a " + line + b"\nx\n" + line + b"\n" + line + b"-->x\n")
        assert len(cues) == 1

    @given(st.lists(st.sampled_from(["1", "0:00:01,000 --> 0:00:02,000", "", "<i>x", "-->", "</i>", "{\\an1}"])))
    def test_what_is_read_can_be_written_and_read(self, lines: list[str]) -> None:
        try:
            cues = parse_srt("\n".join(lines).encode())
        except StreamGateError as error:
            assert error.code == "subtitle_malformed"
        else:
            assert parse_vtt(write_whole(cues)) == cues


def tx3g(text: bytes, *boxes: bytes) -> bytes:
    return struct.pack(">H", len(text)) + text + b"".join(boxes)


def box(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(payload), kind) + payload


def styl(*records: tuple[int, int, int]) -> bytes:
    data = b"".join(struct.pack(">HHHBB4x", a, b, 1, face, 18) for a, b, face in records)
    return box(b"styl", struct.pack(">H", len(records)) + data)


class TestTx3g:
    def test_reads(self) -> None:
        samples = [
            (0, 1000, tx3g(b"")),
            (1000, 2000, tx3g("Añ & <b>".encode())),
            (2000, 3000, b""),
            (3000, 4000, tx3g("\ufeffüber".encode("utf-16-be"))),
            (4000, 4000, tx3g(b"no time")),
            (5000, 6000, tx3g(b"  \r\n\n ok \r\nnext\0")),
        ]
        assert plain(parse_tx3g(samples)) == [
            (1000, 2000, "Añ &amp; &lt;b&gt;"),
            (3000, 4000, "über"),
            (5000, 6000, "ok\nnext"),
        ]

    def test_styles(self) -> None:
        sample = tx3g(b"bold both\nplain", styl((0, 4, 1), (5, 12, 3), (2, 3, 4), (12, 99, 8)), box(b"hlit", bytes(4)))
        assert plain(parse_tx3g([(0, 1, sample)])) == [(0, 1, "<b>bold</b> <b><i>both</i></b>\n<b><i>pl</i></b>ain")]

    @pytest.mark.parametrize("sample", [b"\0", b"\0\5abc", tx3g(b"x", b"\0\0\0\x09styl"), tx3g(b"x", b"\0\0\0\1styl")])
    def test_refuses(self, sample: bytes) -> None:
        assert code_of(parse_tx3g, [(0, 1, sample)]) == "subtitle_malformed"

    @given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), st.binary(max_size=60)), max_size=4))
    def test_random_bytes(self, samples: list[tuple[int, int, bytes]]) -> None:
        for parse in (parse_tx3g, parse_wvtt):
            try:
                assert all(cue.text and cue.start < cue.end for cue in parse(samples))
            except StreamGateError as error:
                assert error.code == "subtitle_malformed"


def test_wvtt_joins_what_samples_cut() -> None:
    a = box(b"vttc", box(b"iden", b"7") + box(b"sttg", b"line:0") + box(b"payl", b"<b>a</b>\n\nmore"))
    b = box(b"vttc", box(b"payl", b"b"))
    samples = [(0, 1000, a), (1000, 2000, a + b), (2000, 3000, b), (3000, 4000, box(b"vtte", b"")), (4000, 5000, b)]
    cues = parse_wvtt(samples)
    assert plain(cues) == [(0, 2000, "<b>a</b>\nmore"), (1000, 3000, "b"), (4000, 5000, "b")]
    assert (cues[0].settings, cues[0].identifier) == ("line:0", "7")
