"""What each kernel costs by itself."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture

from streamgate.media.codecs import describe
from streamgate.native import cmaf, mpegts_config
from streamgate.native.copier import Copier
from streamgate.native.index import Index
from streamgate.native.isobmff import read_index
from streamgate.native.samples import Track
from streamgate.storage.assets import Asset
from streamgate.storage.objects.file import FileSource

BRANDS = ("msdh", "cmfs")


def test_open_and_index(benchmark: BenchmarkFixture, title: Path) -> None:
    source = FileSource(title)
    index = benchmark(lambda: read_index(source.read, source.size))
    assert len(index.tracks) == 2


def test_index_from_bytes(benchmark: BenchmarkFixture, title: Path) -> None:
    source = FileSource(title)
    dumped = read_index(source.read, source.size).dumps()
    index = benchmark(lambda: Index.loads(dumped))
    assert len(index.tracks) == 2


def test_moof_of_a_segment(benchmark: BenchmarkFixture, two_hours: Track) -> None:
    plan = benchmark(lambda: cmaf.segment(two_hours, 6000, 6120, track_id=1, sequence=51, shift=0, brands=BRANDS))
    assert plan.size > 120 * 5000


def test_moof_of_a_keyframe(benchmark: BenchmarkFixture, two_hours: Track) -> None:
    sample = int(two_hours.keyframes[50])
    plan = benchmark(
        lambda: cmaf.keyframe_segment(two_hours, sample, 512 * 60, track_id=1, sequence=51, shift=0, brands=BRANDS)
    )
    assert plan.size > int(two_hours.sizes[sample])


def test_init_segment(benchmark: BenchmarkFixture, two_hours: Track) -> None:
    def call() -> bytes:
        return cmaf.init_segment(
            track_id=1,
            handler="vide",
            timescale=two_hours.timescale,
            entry=two_hours.entries[0],
            language="und",
            name="",
            width=1280,
            height=720,
            matrix=two_hours.matrix,
            brands=("cmfc",),
        )

    assert benchmark(call)[4:8] == b"ftyp"


def test_sizes_of_all_segments(benchmark: BenchmarkFixture, two_hours: Track) -> None:
    starts = np.arange(0, two_hours.samples + 1, 120, dtype=np.uint32)
    sizes = benchmark(lambda: cmaf.segment_sizes(two_hours, starts, brands=BRANDS))
    assert len(sizes) == 1800


def test_decoding_times(benchmark: BenchmarkFixture, two_hours: Track) -> None:
    assert len(benchmark(two_hours.dts)) == 216_000


def test_segment_from_a_file(benchmark: BenchmarkFixture, asset: Asset) -> None:
    video = asset.presentation.video[0]
    fd = asset.sources[0].fd
    body = benchmark(lambda: video.segment(5).from_fd(fd))
    assert body[4:8] == b"styp"


def test_segment_from_memory(benchmark: BenchmarkFixture, asset: Asset) -> None:
    video = asset.presentation.video[0]
    plan = video.segment(5)
    offset, length = plan.span
    window = asset.sources[0].read(offset, length)
    assert benchmark(lambda: video.segment(5).from_buffer(window, offset))[4:8] == b"styp"


def test_segment_from_file_to_file(benchmark: BenchmarkFixture, asset: Asset, tmp_path: Path) -> None:
    """Over the same place again and again: what is measured is the copy, not the file system's growth."""
    plan = asset.presentation.video[0].segment(5)
    source = asset.sources[0].fd
    copier = Copier(source)
    target = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def call() -> int:
        os.lseek(target, 0, os.SEEK_SET)
        return copier.copy([(plan, target)])

    try:
        assert benchmark(call) == plan.size
    finally:
        os.close(target)
    assert (tmp_path / "out").read_bytes() == plan.from_fd(source)


def test_ts_parameters(benchmark: BenchmarkFixture, asset: Asset) -> None:
    made = asset.presentation
    avcc, asc = made.video[0].codec.config, made.audio[0].codec.config
    found = benchmark(lambda: (mpegts_config.parameter_sets(avcc), mpegts_config.adts_config(asc)))
    assert all(found)


def test_ts_segment(benchmark: BenchmarkFixture, asset: Asset) -> None:
    made = asset.presentation
    [(name, (video, audio))] = made.ts_variants.items()
    assert video is not None
    assert audio is not None
    muxer = made.ts_muxer(*name.split("+"))
    fd = asset.sources[0].fd
    pictures = video.segment(5).payload_from_fd(fd)
    sound = audio.segment(5).payload_from_fd(fd)
    assert benchmark(lambda: muxer.segment(5, pictures, sound))[0] == 0x47


def test_codec_of_a_sample_entry(benchmark: BenchmarkFixture, asset: Asset) -> None:
    track = asset.indexes[0].tracks[0]
    assert benchmark(lambda: describe(track.entries[0], handler="vide")).string.startswith("avc1.")
