"""asset.toml: what it may say, and that anything else is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.errors import StreamGateError
from streamgate.storage.description import MAX_BYTES, SourceEntry, SubtitleEntry, gated, parse


def test_a_whole_description() -> None:
    made = parse(
        b"""
        title = "Big Buck Bunny"
        [[source]]
        file = "video/high.mp4"
        tracks = [1, 3]
        [[source]]
        file = "fra.m4a"
        language = "fr-CA"
        label = "Doublage"
        default = true
        [[subtitle]]
        file = "fr.srt"
        language = "fr"
        forced = true
        """
    )
    assert made.title == "Big Buck Bunny"
    assert made.sources == (
        SourceEntry("video/high.mp4", tracks=(1, 3)),
        SourceEntry("fra.m4a", language="fr-CA", label="Doublage", default=True),
    )
    assert made.subtitles == (SubtitleEntry("fr.srt", "fr", forced=True),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no [[source]]"),
        ("title = 3", "title"),
        ("source = 'a.mp4'", "[[source]]"),
        ("[[source]]\nfile = ''", "file"),
        ("[[source]]\nfile = '/etc/passwd'", "leaves"),
        ("[[source]]\nfile = 'a/../../b.mp4'", "leaves"),
        ("[[source]]\nfile = 'a.mp4'\nlanguage = 'not one!'", "BCP 47"),
        ("[[source]]\nfile = 'a.mp4'\ntracks = [0]", "tracks"),
        ("[[source]]\nfile = 'a.mp4'\ntracks = [true]", "tracks"),
        ("[[source]]\nfile = 'a.mp4'\ndefault = 1", "true or false"),
        ("[[source]]\nfile = 'a.mp4'\nlangauge = 'en'", "langauge"),
        ("[[source]]\nfile = 'a.mp4'\n" * 65, "files"),
        ("title = ", "Invalid value"),
        ("title = " + "[" * 5000, ""),
        ("#" * (MAX_BYTES + 1), "longer"),
    ],
)
def test_what_is_wrong_is_named(text: str, told: str) -> None:
    with pytest.raises(StreamGateError) as e:
        parse(text.encode())
    assert e.value.code == "asset_description"
    assert told in e.value.detail


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda s: s.encode("utf-8", "surrogatepass")))
def test_any_bytes_give_a_description_or_a_named_error(data: bytes) -> None:
    try:
        assert parse(data).sources
    except StreamGateError as e:
        assert e.code == "asset_description"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", False), ("gated = false", False), ("gated = true", True), ("gated = true\nlangauge = 1", True)],
)
def test_the_gate_counts_whatever_else_is_wrong(text: str, expected: bool) -> None:
    assert gated(text.encode()) is expected


@pytest.mark.parametrize(
    "text", ["gated = 1", "gated = 'yes'", "gated = ", "gated = true\ngated = false", "#" * (MAX_BYTES + 1)]
)
def test_a_gate_that_cannot_be_understood_is_an_error(text: str) -> None:
    for read in (gated, parse):
        with pytest.raises(StreamGateError) as e:
            read(text.encode())
        assert e.value.code == "asset_description"


def test_a_description_says_whether_it_is_gated() -> None:
    assert parse(b"gated = true\n[[source]]\nfile = 'a.mp4'").gated
    assert not parse(b"[[source]]\nfile = 'a.mp4'").gated
