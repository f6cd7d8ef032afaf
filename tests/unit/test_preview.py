"""The beginning of a presentation: where it ends, and that its tables know of nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgate.media import presentation, preview
from streamgate.media.dash import mpd
from streamgate.media.hls import media_playlist, multivariant
from streamgate.media.presentation import Limits, Presentation, Rendition
from streamgate.storage.assets import Asset, open_asset
from streamgate.storage.discovery import discover, with_previews
from tests.media_factory import Audio, Video, make, write_vtt
from tests.track_factory import audio_track, video_track
from tests.track_factory import given as given_

SOURCE = '[[source]]\nfile = "film.{}"\n'
SUBTITLES = '[[subtitle]]\nfile = "en.vtt"\nlanguage = "en"\n'


def opened(folder: Path, seconds: float, more: str = "", suffix: str = "mp4") -> tuple[Asset, Asset]:
    """The asset and its preview of so many seconds."""
    policy = f'[policy]\nkind = "allow"\npreview = {seconds}\n'
    (folder / "asset.toml").write_text(SOURCE.format(suffix) + more + policy)
    whole, shown = with_previews(discover(folder))
    return open_asset(whole), open_asset(shown)


def lasts(made: Presentation) -> float:
    return float(made.zero + made.duration - made.begin)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds with B-frames and priming, cut each 2 s, so at 4 and 8 s."""
    folder = tmp_path_factory.mktemp("film")
    make(folder / "film.mp4", Video(size=(64, 36), gop=50), Audio(), seconds=10)
    write_vtt(folder / "en.vtt", "eng", 10)
    return folder


@pytest.mark.parametrize(
    ("seconds", "end"), [(0.5, 4), (3.99, 4), (4, 4), (4.01, 4), (7.999, 4), (8, 8), (9.9, 8), (3600, 10)]
)
def test_it_ends_at_a_boundary_that_is_no_later(film: Path, seconds: float, end: int) -> None:
    whole, shown = (asset.presentation for asset in opened(film, seconds, SUBTITLES))
    assert lasts(shown) == pytest.approx(end, abs=0.05)
    assert shown.shift == whole.shift and shown.zero == whole.zero
    assert not shown.renditions.keys() & whole.renditions.keys()
    for few, every in zip((*shown.video, *shown.audio), (*whole.video, *whole.audio), strict=True):
        count = few.track.samples
        assert (count < every.track.samples) == (end < 10)
        # The same samples at the same places and times, and one more would begin behind the end.
        assert few.track.ranges(0, count).tolist() == every.track.ranges(0, count).tolist()
        assert few.track.dts().tolist() == every.track.dts(0, count).tolist()
        assert few.track.composition_offsets().tolist() == every.track.composition_offsets(0, count).tolist()
        assert few.times[:-1].tolist() == every.times[: few.segments].tolist()
        assert few.keyframe_samples.tolist() == [n for n in every.keyframe_samples.tolist() if n < count]
        for n in range(few.segments):
            assert np.array_equal(few.segment(n).ranges, every.segment(n).ranges)
            assert few.segment(n).head == every.segment(n).head
    texts = [cue.start for text in shown.text for cue in text.cues]
    assert texts == [1000 * n + 250 for n in range(end)]


GOPS = (25, 50, 75, 25, 100, 50)


@given(
    st.floats(0.1, 30), st.sampled_from([GOPS, (25,) * 13, (325,), (1, 24, 300)]), st.booleans(), st.integers(0, 90_000)
)
@settings(max_examples=60, deadline=None)
def test_what_is_behind_the_end_changes_nothing(
    seconds: float, gops: tuple[int, ...], closed: bool, begins: int
) -> None:
    """Films that begin alike have one preview: whatever follows is longer, larger, slower, or not there."""
    limits = Limits(max_segment=60)
    video, sound = video_track(gops, closed=closed, begins=begins), audio_track(650, priming=1024)
    made = preview.build([given_(video), given_(sound)], (), limits, seconds)
    few = made.video[0].track.samples
    changed = 2000 + np.arange(video.samples) * 13 % 5000
    sizes = np.where(np.arange(video.samples) < few, video.sizes, changed)
    other = video_track(gops, closed=closed, begins=begins, sizes=sizes)
    loud = audio_track(900, priming=1024)
    again = preview.build([given_(other), given_(loud)], (), limits, seconds)
    assert mpd(made) == mpd(again) and multivariant(made) == multivariant(again)
    for one, two in zip(made.renditions.values(), again.renditions.values(), strict=True):
        assert one.name == two.name and isinstance(one, Rendition) and isinstance(two, Rendition)
        assert one.init() == two.init() and media_playlist(made, one) == media_playlist(again, two)
        for n in range(one.segments):
            assert one.segment(n).head == two.segment(n).head
    for pair in made.ts_variants:
        halves = pair.partition("+")[::2]
        assert made.ts_muxer(*halves).sizes().tolist() == again.ts_muxer(*halves).sizes().tolist()
    # No later than was said, but for a first segment that is longer.
    assert lasts(made) <= seconds + 0.2 or made.video[0].segments == 1


def test_a_track_that_begins_later_is_left_out() -> None:
    late = [(9000, -1, 1 << 16), (0, 0, 1 << 16)]
    tracks = video_track(), audio_track(200), audio_track(200, edits=late, id=3)
    inputs = [given_(track) for track in tracks]
    assert len(presentation.build(inputs).audio) == 2
    made = preview.build(inputs, (), Limits(), 8)
    assert [r.track.samples for r in made.audio] == [200] and len(made.video) == 1


def test_sound_alone_ends_with_its_segment(tmp_path: Path) -> None:
    make(tmp_path / "film.m4a", None, [Audio(), Audio(language="fra", rate=44_100)], seconds=10)
    whole, shown = (asset.presentation for asset in opened(tmp_path, 5, suffix="m4a"))
    assert not shown.video and lasts(shown) == pytest.approx(4, abs=0.1)
    for few, every in zip(shown.audio, whole.audio, strict=True):
        assert few.segments == 1 and few.track.samples < every.track.samples
        assert float(few.times[-1]) / few.timescale <= float(shown.begin) + 4.1


def test_a_cue_is_cut_where_the_preview_ends(film: Path, tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes((film / "film.mp4").read_bytes())
    (tmp_path / "en.vtt").write_text("WEBVTT\n\n00:03.000 --> 00:09.000\nlong\n\n00:04.000 --> 00:05.000\nsecret\n")
    _, shown = opened(tmp_path, 4, SUBTITLES)
    [text] = shown.presentation.text
    assert [(cue.start, cue.end, cue.text) for cue in text.cues] == [(3000, 4000, "long")]
    assert b"secret" not in text.whole() + text.segment(0)
    # Where no cue is left there are no subtitles.
    (tmp_path / "en.vtt").write_text("WEBVTT\n\n00:04.000 --> 00:05.000\nsecret\n")
    assert not opened(tmp_path, 4, SUBTITLES)[1].presentation.text
