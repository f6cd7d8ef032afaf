"""A rung switch at each boundary: one decoder that is given other rungs' segments shows what the sources' own decoders show."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest

from streamgate.media.presentation import Rendition
from streamgate.storage.assets import Asset, discover, open_asset
from tests.media_factory import ladder, moment
from tests.oracles import footage, libav

SECONDS = 17
FPS = 25
SMALL = ((64, 36, 20_000), (96, 54, 40_000), (160, 90, 80_000))
CLOCK = 90_000
Cut = Callable[[Asset, Rendition, int], "Iterator[av.Packet[Any]]"]
_ANNEX_B = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}
REAL = [name for name in footage.real(".mp4") if name in ("bbb-437k.mp4", "bbb-827k.mp4", "bbb-1604k.mp4")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Asset:
    """Three rungs whose GOPs end every second, and with B-frames at each end."""
    folder = tmp_path_factory.mktemp("rungs")
    ladder(folder / "made", seconds=SECONDS, rungs=SMALL, languages=("eng",), subtitles=False, gop=FPS)
    return open_asset(discover(folder)[0])


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Asset:
    folder = tmp_path_factory.mktemp("rungs") / "real"
    folder.mkdir()
    for name in REAL:
        os.link(Path(os.environ["STREAMGATE_MEDIA"]) / name, folder / name)
    (folder / "asset.toml").write_text("".join(f'[[source]]\nfile = "{name}"\n\n' for name in REAL))
    return open_asset(discover(folder.parent)[0])


def expected(asset: Asset) -> list[dict[Fraction, str]]:
    """For each rung what its source's decoder shows: seconds on the presentation's clock -> digest of the picture."""
    return [
        {
            Fraction(pts, r.timescale) + asset.presentation.shift: digest
            for pts, digest in libav.file_pictures(asset.sources[r.source].path, r.track.id)
        }
        for r in asset.presentation.video
    ]


def cmaf_packets(asset: Asset, rendition: Rendition, n: int) -> Iterator[av.Packet[Any]]:
    """The samples of a segment, with the parameter sets of its init segment in front as a browser's decoder gets them."""
    data = rendition.init() + rendition.segment(n).from_fd(asset.sources[rendition.source].fd)
    with av.open(io.BytesIO(data), "r", options={"advanced_editlist": "0"}) as container:
        stream = container.streams.video[0]
        bsf = av.BitStreamFilterContext(_ANNEX_B[rendition.codec.family], stream)
        for packet in container.demux(stream):
            if packet.size:
                yield from bsf.filter(packet)


def ts_packets(asset: Asset, rendition: Rendition, n: int) -> Iterator[av.Packet[Any]]:
    """The pictures of an MPEG-TS segment."""
    halves = next(pair for pair in asset.presentation.ts_variants.values() if pair[0] is rendition)
    muxer = asset.presentation.ts_muxer(*(half.name if half else None for half in halves))
    payloads = [half.ts_payload(n).from_fd(asset.sources[half.source].fd) if half else b"" for half in halves]
    with av.open(io.BytesIO(muxer.segment(n, *payloads)), "r", format="mpegts") as container:
        yield from (packet for packet in container.demux(container.streams.video[0]) if packet.size)


def watch(asset: Asset, order: Sequence[int], packets: Cut) -> list[tuple[Fraction, int, str]]:
    """What one decoder shows of segment ``n`` of rung ``order[n]``, for all ``n``: (seconds, height, digest)."""
    decoder = av.CodecContext.create(asset.presentation.video[0].codec.family, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.thread_count = 1
    times: list[Fraction] = []
    shown = []
    for n, rung in enumerate(order):
        for packet in packets(asset, asset.presentation.video[rung], n):
            times.append(moment(packet))
            packet.pts, packet.dts = len(times) - 1, None
            shown += decoder.decode(packet)
    shown += decoder.decode(None)
    return [(times[frame.pts or 0], frame.height, libav.planes(frame)) for frame in shown]


def orders(rungs: int, segments: int) -> list[list[int]]:
    """Ways through the segments with a switch at each boundary; together they hold every switch at every boundary."""
    return [[(start + step * n) % rungs for n in range(segments)] for step in range(1, rungs) for start in range(rungs)]


@pytest.mark.parametrize("flavour", ["cmaf", "ts"])
@pytest.mark.parametrize("name", ["made", *([pytest.param("real", marks=pytest.mark.slow)] if len(REAL) == 3 else [])])
def test_every_switch_shows_the_sources_pictures(name: str, flavour: str, request: pytest.FixtureRequest) -> None:
    asset: Asset = request.getfixturevalue(name)
    rungs = asset.presentation.video
    theirs = expected(asset)
    assert len(rungs) == 3 and rungs[0].segments > 3
    for order in orders(len(rungs), rungs[0].segments):
        shown = watch(asset, order, cmaf_packets if flavour == "cmaf" else ts_packets)
        borders = [Fraction(int(t), rungs[0].timescale) for t in rungs[0].times]
        wanted = [
            (at, rungs[rung].height, digest)
            for rung, (begin, end) in zip(order, pairwise(borders), strict=True)
            for at, digest in theirs[rung].items()
            if begin <= at < end
        ]
        tick = Fraction(1, CLOCK) if flavour == "ts" else 0
        assert [picture[1:] for picture in shown] == [picture[1:] for picture in wanted]
        assert all(abs(ours[0] - other[0]) <= tick for ours, other in zip(shown, wanted, strict=True))
