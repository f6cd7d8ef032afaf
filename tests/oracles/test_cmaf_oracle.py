"""What goes in comes out: every packet of every source, its payload and its time, read back by libav."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from streamgate.media.presentation import Rendition
from streamgate.storage.assets import Asset, discover, open_asset
from tests.oracles import footage, libav, shapes

# Every picture of minutes of footage is decoded twice.
_REAL = [pytest.param(name, marks=pytest.mark.slow) for name in footage.real(".mp4")]
# The first pictures of an open GOP want the GOP before it; and no pictures are no pictures.
_NOT_ALONE = {"open-gop.mp4", "no-video.mp4"}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("footage")


def opened(name: str, folder: Path) -> tuple[Asset, Path]:
    path = footage.obtain(name, folder)
    return open_asset(discover(path)[0]), path


def whole(asset: Asset, rendition: Rendition) -> bytes:
    fd = asset.sources[rendition.source].fd
    return rendition.init() + b"".join(rendition.segment(n).from_fd(fd) for n in range(rendition.segments))


def compare(asset: Asset, path: Path) -> None:
    """Count, payload, dts and pts of every rendition; one constant for all tracks."""
    made = asset.presentation
    assert made.video or made.audio
    for rendition in (*made.video, *made.audio):
        theirs = libav.packets(path, rendition.track.id)
        ours = libav.packets(whole(asset, rendition))
        constant = made.shift * rendition.timescale
        assert constant.denominator == 1, "the shift is whole ticks in every timescale"
        assert len(ours) == len(theirs) == rendition.track.samples
        assert [p.digest for p in ours] == [p.digest for p in theirs]
        assert [p.dts - constant for p in ours] == [p.dts for p in theirs]
        assert [p.pts - constant for p in ours] == [p.pts for p in theirs]
        assert [p.key for p in ours] == [p.key for p in theirs]


@pytest.mark.parametrize("name", [*footage.GENERATED, *footage.real(".mp4")])
def test_packets_equal_the_sources(name: str, folder: Path) -> None:
    asset, path = opened(name, folder)
    if name == "cockatoo-444-mp3.mp4":
        # High 4:4:4 is refused; MP3 is offered, with a caveat.
        assert [f.code for f in asset.findings] == ["profile_unplayable", "profile_unplayable"]
        assert not asset.presentation.video
    compare(asset, path)


@pytest.mark.parametrize(("name", "late"), [("late-audio.mp4", "soun"), ("late-video.mp4", "vide")])
def test_a_track_that_starts_late_has_an_empty_edit(name: str, late: str, folder: Path) -> None:
    asset, _ = opened(name, folder)
    (index,) = asset.indexes
    delays = {t.handler: sum(duration for duration, media, _ in t.edits if media == -1) for t in index.tracks}
    # Up to one AAC frame of priming comes before the sound.
    assert delays.pop(late) == pytest.approx(0.4 * index.timescale, abs=0.03 * index.timescale)
    assert [*delays.values()] == [0]
    starts = {
        r.kind: Fraction(int(r.times[0]), r.timescale) for r in (*asset.presentation.video, *asset.presentation.audio)
    }
    assert float(starts["audio"] - starts["video"]) == pytest.approx(0.4 if late == "soun" else -0.4, abs=0.03)


@pytest.mark.parametrize(("name", "degrees", "pixel"), [("turned.mp4", -90, (1, 1)), ("wide-pixels.mp4", 0, (4, 3))])
def test_the_picture_keeps_its_shape(name: str, degrees: int, pixel: tuple[int, int], folder: Path) -> None:
    asset, path = opened(name, folder)
    (video,) = asset.presentation.video
    assert libav.shape(path) == libav.shape(whole(asset, video)) == (shapes.SIZE, degrees, pixel)
    assert (video.width, video.height) == shapes.SHOWN[name]


@pytest.mark.parametrize("name", footage.CODECS)
def test_packets_of_other_codecs_equal_the_sources(name: str, folder: Path) -> None:
    compare(*opened(name, folder))


@pytest.mark.parametrize("name", [*footage.GENERATED, *footage.CODECS, *footage.real(".mp4")])
def test_libav_decodes_without_a_complaint(name: str, folder: Path) -> None:
    asset, _ = opened(name, folder)
    for rendition in (*asset.presentation.video, *asset.presentation.audio):
        assert libav.complaints(whole(asset, rendition)) == []


@pytest.mark.parametrize("name", [*(n for n in (*footage.GENERATED, *footage.CODECS) if n not in _NOT_ALONE), *_REAL])
def test_every_segment_alone_gives_the_sources_pictures(name: str, folder: Path) -> None:
    """A rung switch at any boundary: init + that segment decode to what the source's decoder shows there."""
    asset, path = opened(name, folder)
    assert asset.presentation.video or name in footage.real(".mp4")
    for rendition in asset.presentation.video:
        shift = asset.presentation.shift * rendition.timescale
        theirs: dict[int | Fraction, str] = dict(libav.file_pictures(path, rendition.track.id))
        fd = asset.sources[rendition.source].fd
        seen = 0
        for n in range(rendition.segments):
            for pts, digest in libav.pictures(rendition.init() + rendition.segment(n).from_fd(fd)):
                assert theirs[pts - shift] == digest
                seen += 1
        assert seen == len(theirs)


@pytest.mark.parametrize("name", ["b-frames.mp4", "closed-gop.mp4", *_REAL])
def test_keyframe_segments_give_the_sources_keyframes(name: str, folder: Path) -> None:
    asset, path = opened(name, folder)
    for rendition in asset.presentation.video:
        theirs = dict(libav.file_pictures(path, rendition.track.id))
        # libav counts from another zero where composition offsets are negative.
        base = min(theirs) - int(rendition.times[0])
        fd = asset.sources[rendition.source].fd
        for n in range(rendition.keyframes):
            [(pts, digest)] = libav.pictures(rendition.init() + rendition.keyframe(n).from_fd(fd))
            assert theirs[pts + base] == digest
