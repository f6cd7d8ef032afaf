"""Oracle: libav reads the init segment with all segments behind it and finds the packets of the source."""

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest

from streamgate.native.cmaf import init_segment, keyframe_segment, segment
from streamgate.native.samples import Track
from tests.media_factory import Audio, Video, make
from tests.native.boxes import boxes, find

BRANDS = ("cmfc", "iso6")


# Where the samples are is asked, not how they are shown: edits stay out.
NO_EDITS = {"ignore_editlist": "1"}


@dataclass(frozen=True)
class Packet:
    dts: int
    pts: int
    duration: int
    key: bool
    position: int
    payload: bytes


def packets(data: bytes, stream: int = 0) -> list[Packet]:
    with av.open(io.BytesIO(data), "r", options=NO_EDITS) as container:
        found = []
        for p in container.demux(container.streams[stream]):
            if p.size:
                assert p.dts is not None and p.pts is not None and p.duration is not None and p.pos is not None
                found.append(Packet(p.dts, p.pts, p.duration, p.is_keyframe, p.pos, bytes(p)))
        return found


def index(path: Path, stream: int) -> Track:
    """The sample table of a stream as libav sees it; decoding starts at 0."""
    data = path.read_bytes()
    trak = [content for kind, content in boxes(find(data, "moov")) if kind == "trak"][stream]
    found = packets(data, stream)
    dts = [p.dts for p in found]
    return Track.from_samples(
        handler=find(trak, "mdia", "hdlr")[8:12].decode(),
        timescale=struct.unpack_from(">I", find(trak, "mdia", "mdhd"), 12)[0],
        entries=[find(trak, "mdia", "minf", "stbl", "stsd")[8:]],
        sizes=[len(p.payload) for p in found],
        deltas=[*(after - before for before, after in zip(dts, dts[1:], strict=False)), found[-1].duration],
        offsets=[p.pts - p.dts for p in found],
        syncs=[n for n, p in enumerate(found) if p.key],
        positions=[p.position for p in found],
    )


def init_of(track: Track) -> bytes:
    return init_segment(
        track_id=1,
        handler=track.handler,
        timescale=track.timescale,
        entry=track.entries[0],
        language="und",
        name="",
        width=160,
        height=90,
        matrix=track.matrix,
        brands=BRANDS,
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("cmaf") / "source.mp4", Video(bframes=2), Audio(), seconds=3.0)


@pytest.fixture(scope="module")
def fd(source: Path) -> Iterator[int]:
    held = os.open(source, os.O_RDONLY)
    yield held
    os.close(held)


@pytest.mark.parametrize("stream", [0, 1])
@pytest.mark.parametrize("shift", [0, 12_345])
def test_packets_come_back(source: Path, fd: int, stream: int, shift: int) -> None:
    track = index(source, stream)
    starts = track.keyframes.tolist() if stream == 0 else list(range(0, track.samples, 40))
    data = init_of(track)
    for n, (first, last) in enumerate(zip(starts, [*starts[1:], track.samples], strict=True)):
        data += segment(track, first, last, track_id=1, sequence=n + 1, shift=shift, brands=BRANDS).from_fd(fd)
    theirs, ours = packets(source.read_bytes(), stream), packets(data)
    assert len(starts) >= 3
    assert [p.payload for p in ours] == [p.payload for p in theirs]
    assert [p.key for p in ours] == [p.key for p in theirs]
    begin = theirs[0].dts
    assert [p.dts - shift for p in ours] == [p.dts - begin for p in theirs]
    assert [p.pts - shift for p in ours] == [p.pts - begin for p in theirs]


def test_negative_offsets_come_back(source: Path, fd: int) -> None:
    """The same pictures with the first offset taken from all: libav shows them in the same order and distance."""
    before = index(source, 0)
    offsets = before.composition_offsets()
    track = Track.from_samples(
        timescale=before.timescale,
        entries=before.entries,
        sizes=before.sizes,
        deltas=before.deltas(),
        offsets=offsets - offsets[0],
        syncs=before.keyframes,
        positions=[before.ranges(n, n + 1)[0, 0] for n in range(before.samples)],
    )
    assert track.composition_offsets().min() < 0
    plan = segment(track, 0, track.samples, track_id=1, sequence=1, shift=0, brands=BRANDS)
    ours = packets(init_of(track) + plan.from_fd(fd))
    # libav raises every pts by the largest negative offset, so that none precedes its dts.
    raised = int(-track.composition_offsets().min())
    assert [p.pts for p in ours] == (track.dts() + track.composition_offsets() + raised).tolist()
    assert [p.dts for p in ours] == track.dts().tolist()


def test_a_keyframe_segment_decodes_alone(source: Path, fd: int) -> None:
    track = index(source, 0)
    sample = int(track.keyframes[1])
    plan = keyframe_segment(track, sample, 4000, track_id=1, sequence=1, shift=50, brands=BRANDS)
    data = init_of(track) + plan.from_fd(fd)
    shown = int(track.dts()[sample] + track.composition_offsets()[sample])
    (packet,) = packets(data)
    assert (packet.dts, packet.pts, packet.key) == (shown + 50, shown + 50, True)
    with av.open(io.BytesIO(data), "r") as ours, av.open(str(source), "r") as theirs:
        (alone,) = ours.decode(video=0)
        frames = list(theirs.decode(video=0))
    keyframes = [frame for frame in frames if frame.key_frame]
    assert np.array_equal(alone.to_ndarray(), keyframes[1].to_ndarray())
