"""Language tags and names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.media.languages import bcp47, iso639_2, native_name


@pytest.mark.parametrize(
    ("code", "tag", "three", "name"),
    [
        ("eng", "en", "eng", "English"),
        ("en", "en", "eng", "English"),
        ("ger", "de", "deu", "Deutsch"),
        ("deu", "de", "deu", "Deutsch"),
        ("fre", "fr", "fra", "Français"),
        ("chi", "zh", "zho", "中文"),
        ("zho-hant", "zh-Hant", "zho", "繁體中文"),
        ("pt_br", "pt-BR", "por", "Português (BR)"),
        ("es-419", "es-419", "spa", "Español (419)"),
        ("sr-latn-rs", "sr-Latn-RS", "srp", "Српски (Latn-RS)"),
        ("iw", "he", "heb", "עברית"),
        ("fil", "fil", "fil", "Filipino"),
        ("gsw", "gsw", "gsw", "gsw"),
        ("qaa", "qaa", "qaa", "qaa"),
        ("EN-us-x-AB", "en-US-x-ab", "eng", "English (US-x-ab)"),
        ("und", "", "und", ""),
        ("", "", "und", ""),
        ("```", "", "und", ""),
        ('en"', "", "und", ""),
    ],
)
def test_codes(code: str, tag: str, three: str, name: str) -> None:
    assert (bcp47(code), iso639_2(code), native_name(code)) == (tag, three, name)


@given(st.text(max_size=12))
def test_tags_are_stable_and_safe(code: str) -> None:
    tag = bcp47(code)
    assert bcp47(tag) == tag
    assert all(c.isascii() and (c.isalnum() or c == "-") for c in tag)
    assert len(iso639_2(code)) == 3
