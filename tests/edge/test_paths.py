"""A path has one spelling; every other one is refused."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.paths import MAX_PATH, canonical_path, split_token
from streamgate.errors import StreamGateError


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("/v/film/main.m3u8", "/v/film/main.m3u8"),
        ("/v/film/main.m3u8?_HLS_msn=1&CMCD=a%2Cb//..", "/v/film/main.m3u8"),
        (
            "/v/film/v540-0123456789abcdef+aeng-0123456789abcdef/0.ts",
            "/v/film/v540-0123456789abcdef+aeng-0123456789abcdef/0.ts",
        ),
        ("/api/caf%C3%A9", "/api/caf%C3%A9"),
        ("/a/", "/a/"),
        ("/...", "/..."),
        ("http://media.example:8080/v/film/main.mpd?x", "/v/film/main.mpd"),
        ("HTTP://media.example", "/"),
        ("http://media.example?x", "/"),
    ],
)
def test_canonical(target: str, path: str) -> None:
    assert canonical_path(target) == path


@pytest.mark.parametrize(
    "target",
    [
        "*",
        "v/film",
        "media.example:443",
        "//v/film",
        "/v//film",
        "/v/./film",
        "/v/../film",
        "/v/film/..",
        "/.",
        "/v/film\\x",
        "/v/film%5Cx",
        "/v/film\0",
        "/v/film%00",
        "/v/film%0A",
        "/v/film%7F",
        "/v%2Ffilm",
        "/v%2ffilm",
        "/v/%2E%2E/film",
        "/v/%2e%2e/film",
        "/v/%41sset",
        "/v/film%2Bx",
        "/v/film%7e",
        "/v/film%c3%a9",
        "/v/film%C3",
        "/v/film%",
        "/v/film%2",
        "/v/film%zz",
        "/v/film x",
        "/v/film#x",
        '/v/"film"',
        "/v/café",
        "/v/<film>",
        "/" + "a" * MAX_PATH,
    ],
)
def test_refused(target: str) -> None:
    with pytest.raises(StreamGateError) as caught:
        canonical_path(target)
    assert caught.value.code == "path_malformed"


@given(st.text(st.sampled_from("/.%0159aAfF2eECc3\\?#+ é\0" + string.ascii_letters), max_size=40))
def test_a_path_or_an_error_and_idempotent(target: str) -> None:
    try:
        path = canonical_path("/" + target)
    except StreamGateError as error:
        assert error.code == "path_malformed"
        return
    assert canonical_path(path) == path
    assert path.startswith("/") and "//" not in path and "\\" not in path
    assert not {".", ".."} & set(path.split("/"))


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4))
def test_two_paths_never_decode_to_the_same(segments: list[str]) -> None:
    from urllib.parse import quote, unquote

    try:
        path = canonical_path("/" + "/".join(quote(s, safe="!$&'()*+,;=:@") for s in segments))
    except (StreamGateError, UnicodeEncodeError):
        return
    assert quote(unquote(path), safe="/!$&'()*+,;=:@") == path


@pytest.mark.parametrize(
    ("target", "token", "path"),
    [
        ("/v/film/main.m3u8", "", "/v/film/main.m3u8"),
        ("/t/abc/v/film/main.m3u8?x=/t/d", "abc", "/v/film/main.m3u8"),
        ("http://media.example/t/abc/v/film/main.mpd", "abc", "/v/film/main.mpd"),
        ("/t/!%2F~/v/", "!%2F~", "/v/"),
        ("/t", "", "/t"),
        ("/v/t/x/v/y", "", "/v/t/x/v/y"),
        ("/t/x/v/t/y/v/z", "x", "/v/t/y/v/z"),
    ],
)
def test_a_token_is_cut_off(target: str, token: str, path: str) -> None:
    assert split_token(target) == (token, path)


@pytest.mark.parametrize(
    "target", ["/t/", "/t/x", "/t/x/", "/t/x/v", "/t//v/film", "/t/x//v/film", "/t/x/t/y/v/film", "/t/x?/v/film"]
)
def test_a_token_with_anything_but_media_behind_it(target: str) -> None:
    with pytest.raises(StreamGateError) as caught:
        split_token(target)
    assert caught.value.code == "path_malformed"


@given(st.text(alphabet=string.ascii_letters + "/t.%2F?-_", max_size=40))
def test_what_is_behind_a_token_is_canonical(rest: str) -> None:
    try:
        token, path = split_token(f"/t/{rest}")
    except StreamGateError as error:
        assert error.code == "path_malformed"
        return
    assert path.startswith("/v/") and canonical_path(path) == path
    assert token and "/" not in token and "?" not in token
