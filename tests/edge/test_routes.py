"""The table of URLs."""

from __future__ import annotations

import pytest

from edge.routes import PLAYLISTS, ROUTES, asset_of, match
from streamgate.errors import StreamGateError

V = "v540-0123456789abcdef"
A = "aeng-0123456789abcdef"
T = "tpt-0123456789abcdef"


@pytest.mark.parametrize(
    ("path", "name", "rendition", "audio", "number"),
    [
        ("main.m3u8", "multivariant", "", "", -1),
        ("main-ts.m3u8", "multivariant_ts", "", "", -1),
        ("main.mpd", "mpd", "", "", -1),
        (f"{V}/index.m3u8", "media_playlist", V, "", -1),
        (f"{T}/index.m3u8", "media_playlist", T, "", -1),
        (f"{V}/iframes.m3u8", "iframe_playlist", V, "", -1),
        (f"{A}/init.mp4", "init", A, "", -1),
        (f"{A}/0.m4s", "segment", A, "", 0),
        (f"{V}/123456789.m4s", "segment", V, "", 123456789),
        (f"{V}/k7.m4s", "keyframe", V, "", 7),
        (f"{V}+{A}/index.m3u8", "ts_playlist", V, A, -1),
        (f"{V}+{A}/3.ts", "ts_segment", V, A, 3),
        (f"{V}+none/3.ts", "ts_segment", V, "none", 3),
        (f"none+{A}/3.ts", "ts_segment", "none", A, 3),
        (f"{T}/2.vtt", "text_segment", T, "", 2),
        (f"{T}/all.vtt", "text", T, "", -1),
    ],
)
def test_match(path: str, name: str, rendition: str, audio: str, number: int) -> None:
    target = match(f"/v/Film_1.x-y/{path}")
    assert (target.route.name, target.asset) == (name, "Film_1.x-y")
    assert (target.rendition, target.audio, target.number) == (rendition, audio, number)
    assert target.leaf == path.rpartition("/")[2]
    # Whatever lies below a rendition is promised by its name; the rest must be asked for again.
    assert target.route.immutable == ("/" in path)


@pytest.mark.parametrize(
    "path",
    [
        "/v/film",
        "/v/film/",
        "/v/film/other.m3u8",
        "/v/-film/main.m3u8",
        "/v/.film/main.m3u8",
        f"/v/{'a' * 65}/main.m3u8",
        "/v/fi~lm/main.m3u8",
        "/v/film/main.m3u8/",
        "/v/film/main.m3u8\n",
        f"/v/film/{V}/00.m4s",
        f"/v/film/{V}/01.m4s",
        f"/v/film/{V}/-1.m4s",
        f"/v/film/{V}/1234567890.m4s",
        f"/v/film/{V}/\u0661.m4s",
        f"/v/film/{V}/0.ts",
        f"/v/film/{A}+{V}/0.ts",
        f"/v/film/x{V}/0.m4s",
        f"/v/film/{V.upper()}/0.m4s",
        f"/v/film/{V}0/0.m4s",
    ],
)
def test_no_match(path: str) -> None:
    with pytest.raises(StreamGateError) as caught:
        match(path)
    assert caught.value.code == "not_found"


def test_names_are_unique() -> None:
    assert len({route.name for route in ROUTES}) == len(ROUTES)


@pytest.mark.parametrize(
    ("path", "asset"),
    [("/v/film/main.mpd", "film"), ("/v/film", "film"), ("/v/film/", "film"), ("/v/film/a/b/c", "film"), ("/v/", ""), ("/v/~x/y", ""),
     ("/v/-x/main.mpd", ""), (f"/v/{'x' * 65}/main.mpd", ""), (f"/v/{'x' * 64}/main.mpd", "x" * 64)],
)  # fmt: skip
def test_every_path_belongs_to_an_asset_or_none(path: str, asset: str) -> None:
    assert asset_of(path) == asset


def test_playlists_are_routes() -> None:
    assert PLAYLISTS <= {route.name for route in ROUTES}
