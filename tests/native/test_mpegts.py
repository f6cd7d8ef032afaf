"""The TS kernel on made-up sample tables: every rule of the checker, exact sizes, stuffing, clocks and failures."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamgate.errors import StreamGateError
from streamgate.native.mpegts import Muxer
from streamgate.native.samples import Track
from tests.native.test_mpegts_config import ASC, AVCC, PPS, SPS, record
from tests.native.ts_checker import PACKET, Segment, adts_frames, check, nal_units, pictures

DELIMITER = b"\x09\x30"


def nal(kind: int, size: int, rng: random.Random) -> bytes:
    """A NAL unit of ``size`` bytes without anything that looks like a start code."""
    varied = bytes(rng.randrange(1, 256) for _ in range(min(size - 1, 300)))
    return bytes([0x60 | kind]) + varied + b"\xa5" * (size - 301)


def sample(*units: bytes) -> bytes:
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)


@dataclass
class Source:
    """One track, its samples, and where its segments begin."""

    track: Track
    samples: list[bytes]
    starts: list[int]
    shift: int = 0

    def payload(self, n: int) -> bytes:
        starts = self.starts + [self.starts[-1]] * (n + 2 - len(self.starts))
        return b"".join(self.samples[starts[n] : starts[n + 1]])


def source(
    samples: list[bytes], starts: list[int], *, timescale: int, deltas: int | list[int], shift: int = 0, **columns: Any
) -> Source:
    sizes = [len(one) for one in samples]
    track = Track.from_samples(
        timescale=timescale,
        entries=[],
        sizes=sizes,
        positions=np.cumsum([0, *sizes])[:-1],
        deltas=[deltas] * len(sizes) if isinstance(deltas, int) else deltas,
        **columns,
    )
    return Source(track, samples, starts, shift)


def video(
    count: int = 8,
    gop: int = 4,
    *,
    size: int = 1000,
    timescale: int = 25,
    deltas: int | list[int] = 1,
    make: Callable[[int], bytes] | None = None,
    **columns: Any,
) -> Source:
    rng = random.Random(count)
    one = make or (lambda n: sample(nal(5 if n % gop == 0 else 1, size, rng)))
    return source(
        [one(n) for n in range(count)],
        [*range(0, count, gop), count],
        timescale=timescale,
        deltas=deltas,
        syncs=list(range(0, count, gop)),
        **columns,
    )


def audio(
    count: int,
    starts: list[int],
    *,
    size: int = 200,
    timescale: int = 48000,
    deltas: int | list[int] = 1024,
    **columns: Any,
) -> Source:
    rng = random.Random(count)
    return source([rng.randbytes(size) for _ in range(count)], starts, timescale=timescale, deltas=deltas, **columns)


def muxer(picture: Source | None, sound: Source | None, *, avcc: bytes = AVCC, asc: bytes = ASC) -> Muxer:
    def starts(one: Source | None) -> np.ndarray[Any, np.dtype[np.uint32]]:
        return np.array(one.starts if one else [], np.uint32)

    return Muxer(
        picture.track if picture else None,
        sound.track if sound else None,
        avcc=avcc,
        asc=asc,
        video_starts=starts(picture),
        audio_starts=starts(sound),
        video_shift=picture.shift if picture else 0,
        audio_shift=sound.shift if sound else 0,
    )


def cut(picture: Source | None, sound: Source | None, **config: bytes) -> list[bytes]:
    """All segments, each made by a muxer of its own and in random order; their sizes are what the index promised."""
    plan = muxer(picture, sound, **config)
    order = list(range(plan.segments))
    random.Random(1).shuffle(order)
    made = {
        n: muxer(picture, sound, **config).segment(
            n, picture.payload(n) if picture else b"", sound.payload(n) if sound else b""
        )
        for n in order
    }
    segments = [made[n] for n in range(plan.segments)]
    assert plan.sizes().dtype == np.uint64
    assert plan.sizes().tolist() == [len(segment) for segment in segments]
    return segments


def half_up(time: int, timescale: int) -> int:
    return (time * 180000 + timescale) // (2 * timescale)


def expect(found: list[Segment], picture: Source | None, sound: Source | None) -> None:
    """What the segments carry is what the sources hold: NAL units, frames, times and keyframes."""
    pes = [pes for segment in found for pes in segment.video]
    if picture:
        track = picture.track
        times = track.dts() + picture.shift
        shown = [half_up(int(t), track.timescale) for t in times + track.composition_offsets()]
        lead = min(0, *track.composition_offsets().tolist())
        decoded = [half_up(int(t) + lead, track.timescale) for t in times]
        kept = [n for n, one in enumerate(picture.samples) if one]
        assert [one.pts for one in pes] == [shown[n] for n in kept]
        assert [one.dts for one in pes] == [decoded[n] for n in kept]
        keys = [n for n in track.keyframes.tolist() if n in kept]
        assert [n for n, one in zip(kept, pes, strict=True) if one.key] == keys
        assert [pictures(nal_units(one.data)) for one in pes] == [pictures(split(picture.samples[n])) for n in kept]
    heard = [one for segment in found for one in segment.audio]
    if sound:
        frames = [frame for one in heard for frame in adts_frames(one.data)]
        assert frames == [frame for frame in sound.samples if frame]
        clock = iter(
            half_up(int(t), sound.track.timescale)
            for t, frame in zip(sound.track.dts() + sound.shift, sound.samples, strict=True)
            if frame
        )
        rate = sound.track.timescale
        for one in heard:
            for n, _ in enumerate(adts_frames(one.data)):
                assert abs(one.pts + half_up(n * 1024, rate) - next(clock)) <= 1


def split(data: bytes) -> list[bytes]:
    units, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        units.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return units


def test_video_and_audio() -> None:
    picture, sound = video(offsets=[2, 5, 3, 2] * 2), audio(30, [0, 8, 15, 30])
    segments = cut(picture, sound)
    found = check(segments)
    expect(found, picture, sound)
    assert len(segments) == 3 and not found[2].video, "longer audio ends in a further segment"
    assert len(found[2].pcrs) == found[2].lone_pcrs > 2


def test_video_alone_and_audio_alone() -> None:
    picture, sound = video(), audio(30, [0, 8, 15, 30])
    expect(check(cut(picture, None)), picture, None)
    found = check(cut(None, sound))
    expect(found, None, sound)
    assert all(segment.audio[0].key and not segment.lone_pcrs for segment in found)


def test_audio_ends_early() -> None:
    picture, sound = video(), audio(6, [0, 6])
    found = check(cut(picture, sound))
    expect(found, picture, sound)
    assert not found[1].audio


def test_audio_begins_first_and_later_segments_may_be_empty() -> None:
    picture, sound = video(first_dts=25), audio(60, [0, 40, 60, 60])
    found = check(cut(picture, sound))
    expect(found, picture, sound)
    assert found[0].pcrs[0] == 0 and not found[2].pcrs


def test_a_segment_without_samples_in_the_middle() -> None:
    sound = audio(100, [0, 50, 50, 100])
    expect(check(cut(None, sound)), None, sound)


def test_aac_frames_share_a_pes_packet_only_on_their_grid() -> None:
    regular = check(cut(None, audio(8, [0, 8])))[0]
    assert [len(list(adts_frames(pes.data))) for pes in regular.audio] == [4, 4]
    gap = audio(8, [0, 8], deltas=[1024, 5000, 1024, 1024, 1024, 1024, 1024, 1024])
    found = check(cut(None, gap))
    expect(found, None, gap)
    assert [len(list(adts_frames(pes.data))) for pes in found[0].audio] == [2, 4, 2]
    jitter = audio(8, [0, 8], timescale=1000, deltas=[21, 22, 21, 21, 22, 21, 21, 22])
    assert [pes.pts for pes in check(cut(None, jitter))[0].audio] == [int(t) * 90 for t in jitter.track.dts()]
    huge = audio(4, [0, 4], size=8184)
    assert len(check(cut(None, huge))[0].audio) == 4


def test_empty_samples_are_no_access_units() -> None:
    rng = random.Random(0)
    picture = video(make=lambda n: b"" if n in (0, 3, 6) else sample(nal(1, 500, rng)))
    sound = audio(8, [0, 4, 8])
    frames = [b"" if n in (2, 4) else one for n, one in enumerate(sound.samples)]
    sound = source(frames, [0, 4, 8], timescale=48000, deltas=1024)
    found = check(cut(picture, sound))
    expect(found, picture, sound)


@pytest.mark.parametrize(
    "inside",
    [
        (DELIMITER,),
        (DELIMITER, SPS, PPS),
        (SPS, PPS),
        (b"",),
        (DELIMITER,) * 40,
        (b"\x67\x42\x01",),
        (SPS, b"", PPS, PPS),
    ],
)
@pytest.mark.parametrize("size", [100, 140, 152, 153, 154, 160, 182, 183, 184, 185, 330, 340, 350, 2000])
def test_in_band_sets_are_dropped_and_stuffed(inside: tuple[bytes, ...], size: int) -> None:
    rng = random.Random(size)
    picture = video(make=lambda n: sample(*inside, nal(5 if n % 4 == 0 else 1, size, rng)))
    found = check(cut(picture, None))
    expect(found, picture, None)
    keys = [nal_units(pes.data) for segment in found for pes in segment.video if pes.key]
    other = [unit for unit in inside if unit and unit not in (DELIMITER, SPS, PPS)]
    assert all(units[1:-1] == [SPS, PPS, *other] for units in keys), "other sets follow those of the avcC box"


def test_a_sample_of_nothing_but_what_is_dropped_still_fills_its_packets() -> None:
    picture = video(make=lambda n: sample(*[DELIMITER] * 2000) if n % 2 else bytes(4 * 1500))
    found = check(cut(picture, None))
    assert [pictures(nal_units(pes.data)) for segment in found for pes in segment.video] == [[]] * 8


def test_every_size_around_packet_borders() -> None:
    picture = video(600, 600, make=lambda n: sample(bytes([0x65]) + b"\xa5" * n))
    expect(check(cut(picture, None)), picture, None)


@pytest.mark.parametrize("timescale, deltas", [(1, 3), (10, 1), (1000, 3000), (24000, 1001), (60000, 1001)])
def test_pcr_keeps_coming_at_any_frame_rate(timescale: int, deltas: int) -> None:
    picture = video(timescale=timescale, deltas=deltas)
    found = check(cut(picture, None))
    expect(found, picture, None)


def test_first_pcr_is_not_negative_and_the_clock_moves() -> None:
    found = check(cut(video(first_dts=0), None))
    pcrs = [pcr for segment in found for pcr in segment.pcrs]
    assert pcrs[0] == 0 and pcrs == sorted(set(pcrs))
    late = check(cut(video(first_dts=250), None))
    assert late[0].pcrs[0] == late[0].video[0].dts - 9000


@pytest.mark.parametrize("first", [(1 << 33) - 9000, (1 << 33) - 20000, (1 << 34) - 1, (1 << 33) * 5 - 100])
def test_times_wrap(first: int) -> None:
    picture = video(12, timescale=90000, deltas=3600, first_dts=first, offsets=[3600, 10800, 0] * 4)
    sound = audio(20, [0, 7, 14, 20], first_dts=0, shift=first * 8 // 15)
    found = check(cut(picture, sound))
    wrapped = {pes.pts - first % (1 << 33) for segment in found for pes in segment.video}
    shown = set((picture.track.dts() + picture.track.composition_offsets() - first).tolist())
    assert {one % (1 << 33) for one in wrapped} == shown


def test_negative_composition_offsets() -> None:
    picture = video(first_dts=10, offsets=[0, 2, -1, -1] * 2)
    found = check(cut(picture, None))
    expect(found, picture, None)
    assert found[0].video[0].dts == found[0].video[0].pts - 3600


def test_times_below_0_wrap() -> None:
    for picture in (video(offsets=[-1, 2, -3, -1] * 2, shift=-100), video(shift=-1)):
        sound = audio(30, [0, 8, 15, 30], shift=-2048)
        found = check(cut(picture, sound))
        expect(found, picture, sound)
        assert found[0].video[0].dts < 0 and found[0].pcrs[0] < 0


def test_audio_with_a_constant_composition_offset() -> None:
    found = check(cut(None, audio(4, [0, 4], offsets=[480] * 4)))
    assert found[0].audio[0].pts == 900


@pytest.mark.parametrize(
    "asc, header",
    [
        ("1190", (1, 3, 2)),
        ("1210", (1, 4, 2)),
        ("1588", (1, 11, 1)),
        ("2b118800", (1, 6, 2)),
        ("eb098800", (1, 6, 1)),
        ("17802ee010", (1, 6, 2)),
        ("1138", (1, 2, 7)),
    ],
)
def test_adts_describes_the_core(asc: str, header: tuple[int, int, int]) -> None:
    sound = audio(3, [0, 3])
    data = check(cut(None, sound, asc=bytes.fromhex(asc)))[0].audio[0].data
    assert (data[2] >> 6, data[2] >> 2 & 15, (data[2] & 1) << 2 | data[3] >> 6) == header


def test_what_is_no_parameter_set_is_not_repeated() -> None:
    """Were it laid out and then dropped like a sample's delimiters, the packets would have holes."""
    for other in (b"", DELIMITER, b"\x09" * 500, b"\x65" * 200):
        picture = video()
        found = check(cut(picture, None, avcc=record([other, SPS], [PPS, other])))
        expect(found, picture, None)
        assert nal_units(found[0].video[0].data)[1:-1] == [SPS, PPS]


@pytest.mark.parametrize(
    "bad", [b"\x00", b"\0\0\0\x05abcd", b"\xff\xff\xff\xff" + bytes(40), sample(b"\x65ab") + b"\0\0\1"]
)
def test_malformed_samples(bad: bytes) -> None:
    good = sample(b"\x65abc")
    picture = video(make=lambda n: bad if n == 5 else good)
    made = muxer(picture, None)
    assert len(made.segment(0, picture.payload(0), b"")) == made.sizes()[0]
    with pytest.raises(StreamGateError) as caught:
        made.segment(1, picture.payload(1), b"")
    assert caught.value.code == "source_malformed"


def test_refusals() -> None:
    picture, sound = video(), audio(30, [0, 8, 30])
    made = muxer(picture, sound)

    def code(call: Callable[[], object]) -> str:
        with pytest.raises(StreamGateError) as caught:
            call()
        return caught.value.code

    for n in (-1, 2, 1 << 40):
        assert code(partial(made.segment, n, b"", b"")) == "segment_not_found"
    assert code(lambda: made.segment(0, picture.payload(0)[:-1], sound.payload(0))) == "source_truncated"
    assert code(lambda: made.segment(0, picture.payload(0), sound.payload(0) + b"x")) == "source_truncated"
    assert code(lambda: muxer(None, None)) == "ts_unavailable"
    assert code(lambda: muxer(None, audio(2, [0, 2], size=8185))) == "ts_unavailable"
    assert code(lambda: muxer(None, audio(3, [0, 3], offsets=[0, 1, 0]))) == "ts_unavailable"
    assert code(lambda: muxer(video(timescale=1, deltas=3600), None)) == "ts_unavailable"
    keys = source([sample(b"\x65a")] * 3000, [0, 3000], timescale=25, deltas=1)
    assert code(lambda: muxer(keys, None, avcc=record([SPS + bytes(30_000)], [PPS]))) == "ts_unavailable"
    assert code(lambda: muxer(video(timescale=1, first_dts=1 << 40), None)) == "ts_unavailable"
    for starts in ([0, 9], [4, 0, 8], []):
        assert code(partial(muxer, Source(picture.track, [], starts), None)) == "internal"
    for shift in (1 << 62, -(1 << 62)):
        assert code(partial(muxer, Source(picture.track, [], [0, 8], shift), None)) == "ts_unavailable"


def test_any_buffer_will_do() -> None:
    picture, sound = video(), audio(30, [0, 8, 30])
    made = muxer(picture, sound)
    assert made.segment(0, memoryview(picture.payload(0)), bytearray(sound.payload(0))) == made.segment(
        0, picture.payload(0), sound.payload(0)
    )


def test_a_muxer_of_no_segments() -> None:
    assert muxer(Source(video().track, [], [3]), None).sizes().tolist() == []


tables = st.lists(
    st.tuples(
        st.lists(st.integers(1, 900), min_size=1, max_size=4),  # NAL units of a sample
        st.integers(1, 400),  # delta
        st.integers(0, 500),  # composition offset
        st.booleans(),  # sync
        st.sampled_from([(), (DELIMITER,), (DELIMITER, SPS, PPS), (b"",), (PPS,)]),
    ),
    min_size=1,
    max_size=40,
)
frames = st.lists(
    st.tuples(st.integers(0, 700), st.sampled_from([1024, 1024, 1024, 1023, 3000])), min_size=1, max_size=60
)
cuts = st.lists(st.integers(0, 60), max_size=4)


@given(tables, frames, cuts, cuts, st.integers(-2000, 2000), st.sampled_from([90, 600, 1000, 12800, 90000]))
@example([([1], 1, 0, True, (b"",))], [(0, 1024)], [], [], 0, 600)
def test_any_sample_table(
    pictures_made: list[tuple[list[int], int, int, bool, tuple[bytes, ...]]],
    frames_made: list[tuple[int, int]],
    video_cuts: list[int],
    audio_cuts: list[int],
    shift: int,
    timescale: int,
) -> None:
    """Whatever the table: sizes are exact, counters, clock and PES structure hold, and the media comes out again."""
    rng = random.Random(0)
    syncs = [n for n, one in enumerate(pictures_made) if one[3]]
    picture = source(
        [sample(*one[4], *(nal(5 if one[3] else 1, size, rng) for size in one[0])) for one in pictures_made],
        sorted({0, len(pictures_made), *(at for at in video_cuts if at < len(pictures_made))}),
        timescale=timescale,
        deltas=[one[1] * max(1, timescale // 1000) for one in pictures_made],
        offsets=[one[2] for one in pictures_made],
        syncs=syncs,
        first_dts=4000,
        shift=shift,
    )
    sound = source(
        [rng.randbytes(size) for size, _ in frames_made],
        sorted({0, len(frames_made), *(at for at in audio_cuts if at < len(frames_made))}),
        timescale=48000,
        deltas=[delta for _, delta in frames_made],
    )
    for one, other in ((picture, sound), (picture, None), (None, sound)):
        segments = cut(one, other)
        assert all(len(segment) % PACKET == 0 for segment in segments)
        expect(check(segments), one, other)


@given(st.lists(st.binary(min_size=1, max_size=60) | st.just(bytes(300)), min_size=1, max_size=12), st.data())
def test_any_payload_is_written_or_refused(samples: list[bytes], data: st.DataObject) -> None:
    """Bytes that are no NAL units, or lengths that lie: the promised size, or a code; never more, never a crash."""
    samples = [data.draw(st.sampled_from([one, sample(one), sample(one) + one])) for one in samples]
    picture = source(samples, [0, len(samples)], timescale=25, deltas=1)
    made = muxer(picture, None)
    try:
        assert len(made.segment(0, picture.payload(0), b"")) == made.sizes()[0]
    except StreamGateError as error:
        assert error.code == "source_malformed"


@given(st.binary(max_size=40) | st.binary(max_size=40).map(lambda tail: AVCC[:6] + tail), st.binary(max_size=12))
def test_any_configuration_is_used_or_refused(avcc: bytes, asc: bytes) -> None:
    for picture, sound in ((video(), None), (None, audio(3, [0, 3]))):
        try:
            found = check(cut(picture, sound, avcc=avcc, asc=asc)) if sound else cut(picture, sound, avcc=avcc, asc=asc)
            assert len(found) >= 1
        except StreamGateError as error:
            assert error.code in ("source_malformed", "ts_unavailable")
