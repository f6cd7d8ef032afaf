"""Audio and text codecs: strings, rates and channels, QuickTime's entries made plain, SBR that nobody signals."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from streamgate.errors import StreamGateError
from streamgate.media.codecs import describe, wants_first_sample
from streamgate.media.codecs.sbr import ends_with_sbr
from tests.media_factory import Audio, make

from .sample_entries import audio, box, children, entries, esds, first_samples, mp4a, video

# Track, string, sample rate, channels, playable.
MADE = {
    "aac.mp4": (Audio(), "mp4a.40.2", 48000, 2, True),
    "aac-mono.mp4": (Audio(layout="mono", rate=22050), "mp4a.40.2", 22050, 1, True),
    "aac-51.mp4": (Audio(layout="5.1"), "mp4a.40.2", 48000, 6, True),
    # No channelConfiguration says 4.1: a program config element does.
    "aac-41.mp4": (Audio(layout="4.1"), "mp4a.40.2", 48000, 5, False),
    "opus.mp4": (Audio(codec="libopus"), "Opus", 48000, 2, True),
    "flac.mp4": (Audio(codec="flac", rate=44100), "fLaC", 44100, 2, True),
    "ac3.mp4": (Audio(codec="ac3", layout="5.1"), "ac-3", 48000, 6, True),
    "mp3.mp4": (Audio(codec="libmp3lame"), "mp4a.6B", 48000, 2, True),
    "mp3-mono.mp4": (Audio(codec="libmp3lame", rate=22050, layout="mono"), "mp4a.69", 22050, 1, True),
    # QuickTime: version 1 sound descriptions with a wave box, and '.mp3'.
    "aac.mov": (Audio(), "mp4a.40.2", 48000, 2, True),
    "ac3.mov": (Audio(codec="ac3"), "ac-3", 48000, 2, True),
    "mp3.mov": (Audio(codec="libmp3lame"), "mp4a.6B", 48000, 2, True),
}


@pytest.mark.parametrize("name", MADE)
def test_what_encoders_make(name: str, tmp_path: Path) -> None:
    spec, string, rate, channels, playable = MADE[name]
    path = make(tmp_path / name, None, spec, seconds=0.3)
    ((handler, entry),) = entries(path)
    first = first_samples(path)[0][: wants_first_sample(entry)]
    codec = describe(entry, handler=handler, first_sample=first)
    assert (codec.kind, codec.string, codec.sample_rate, codec.channels) == ("audio", string, rate, channels)
    assert codec.playable is playable
    # The clean entry is version 0 with the true channels and rate; cleaning it again changes nothing.
    assert struct.unpack_from(">H6xHH4xI", codec.entry, 16) == (0, channels, 16, rate << 16)
    assert b"wave" not in codec.entry
    assert describe(codec.entry, handler=handler, first_sample=first) == codec


def test_eac3(tmp_path: Path) -> None:
    path = tmp_path / "eac3.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("eac3", rate=48000, layout="5.1")
        for n in range(4):
            frame = av.AudioFrame.from_ndarray(np.zeros((6, 1536), np.float32), format="fltp", layout="5.1")
            frame.sample_rate, frame.pts, frame.time_base = 48000, n * 1536, Fraction(1, 48000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    ((handler, entry),) = entries(path)
    codec = describe(entry, handler=handler)
    assert (codec.string, codec.family, codec.sample_rate, codec.channels) == ("ec-3", "eac3", 48000, 6)
    assert children(codec.entry, 36)[b"dec3"] == codec.config


def test_eac3_with_a_dependent_substream() -> None:
    # 5.1 and, in a dependent substream, the pair Lrs/Rrs: 7.1.
    bits = f"{0:013b}{0:03b}" + f"{0:02b}{16:05b}{0:05b}{7:03b}1{0:03b}{1:04b}{0b10:09b}"
    config = int(bits, 2).to_bytes(len(bits) // 8)
    assert describe(audio(b"ec-3", box(b"dec3", config)), handler="soun").channels == 8


@pytest.mark.parametrize(
    ("specific", "string", "rate", "channels", "playable"),
    [
        ("1210", "mp4a.40.2", 44100, 2, True),
        ("1190", "mp4a.40.2", 48000, 2, True),
        ("11b8", "mp4a.40.2", 48000, 8, True),  # channelConfiguration 7
        ("2b920800", "mp4a.40.5", 44100, 2, True),  # explicit, hierarchical
        ("eb8a0800", "mp4a.40.29", 44100, 2, True),
        ("131056e598", "mp4a.40.5", 48000, 2, True),  # explicit, backward compatible
        ("138856e5a54880", "mp4a.40.29", 44100, 2, True),
        ("138856e5a0", "mp4a.40.5", 44100, 1, True),
        ("139056e500", "mp4a.40.2", 22050, 2, True),  # explicitly none
        ("0a10", "mp4a.40.1", 44100, 2, False),
        ("2210", "mp4a.40.4", 44100, 2, False),
        ("f8e85000", "mp4a.40.39", 44100, 2, False),
        ("f9482000", "mp4a.40.42", 44100, 1, True),
        ("17800ac448", "mp4a.40.2", 5512, 9, False),  # an explicit rate, and channelConfiguration 9: unknown
    ],
)
def test_audio_specific_configs(specific: str, string: str, rate: int, channels: int, playable: bool) -> None:
    entry = audio(b"mp4a", esds(specific), channels=9)
    codec = describe(entry, handler="soun")
    assert (codec.string, codec.sample_rate, codec.channels, codec.playable) == (string, rate, channels, playable)
    assert codec.config.hex() == specific


@pytest.mark.parametrize(("object_type", "string", "playable"), [(0x67, "mp4a.67", True), (0x66, "mp4a.66", False)])
def test_mpeg2_aac(object_type: int, string: str, playable: bool) -> None:
    codec = describe(mp4a("1210", object_type), handler="soun")
    assert (codec.string, codec.playable) == (string, playable)


def frame(*elements: str, trailing: str = "") -> bytes:
    """A raw_data_block: these bits, ID_END, alignment."""
    bits = "".join(elements) + "111"
    bits += trailing or "0" * (-len(bits) % 8)
    return int("1" + bits, 2).to_bytes(len(bits) // 8 + 1)[1:]


def fill(payload: str) -> str:
    """A fill element; ``payload`` in bits."""
    size = len(payload) // 8
    return "110" + (f"{size:04b}" if size < 15 else f"1111{size - 14:08b}") + payload


CHANNELS = "001" + "0110" * 50 + "1"
SBR_HEADER = "1" + "1" + "0101" + "1001" + "000" + "00" + "00"
SBR = fill(("1101" + SBR_HEADER + "10" * 60)[:96])
LONG_SBR = fill(("1110" + "0" * 10 + SBR_HEADER + "10" * 200)[:320])
PADDING = fill("0000" + "0" * 20)
PADDING_BYTES = fill("00010000" + "10100101" * 20)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (frame(CHANNELS, SBR), True),
        (frame(CHANNELS, "1", LONG_SBR), True),
        (frame(CHANNELS, SBR, PADDING), True),
        (frame(CHANNELS, LONG_SBR, PADDING_BYTES, PADDING), True),
        (frame(CHANNELS, "0" * ((-len(CHANNELS + SBR) - 3 - 3) % 8), SBR, trailing="010"), True),
        (frame(CHANNELS, PADDING), False),
        (frame(CHANNELS), False),
        (bytes(64), False),
        (b"", False),
        (b"\xff", False),
    ],
)
def test_sbr_in_a_frame(data: bytes, found: bool) -> None:
    assert ends_with_sbr(data) is found


def test_frames_without_sbr_have_none(tmp_path: Path) -> None:
    path = make(tmp_path / "low.mp4", None, Audio(rate=16000, bitrate=24000), seconds=6)
    with av.open(str(path)) as source:
        packets = [bytes(packet) for packet in source.demux() if packet.size]
    assert sum(map(ends_with_sbr, packets)) <= len(packets) // 30


class TestImplicitSbr:
    """AAC-LC by its configuration, at 24 kHz: what is in the frames decides."""

    entry = mp4a("1310", rate=24000)

    def test_nothing_found(self) -> None:
        codec = describe(self.entry, handler="soun", first_sample=frame(CHANNELS), timescale=24000, delta=1024)
        assert (codec.string, codec.sample_rate) == ("mp4a.40.2", 24000)

    def test_by_the_track_s_clock(self) -> None:
        codec = describe(self.entry, handler="soun", timescale=48000, delta=2048)
        assert (codec.string, codec.sample_rate) == ("mp4a.40.5", 48000)

    def test_by_the_first_frame(self) -> None:
        assert wants_first_sample(self.entry) >= 768
        codec = describe(self.entry, handler="soun", first_sample=frame(CHANNELS, SBR), timescale=24000, delta=1024)
        assert (codec.string, codec.sample_rate) == ("mp4a.40.5", 48000)
        assert codec.config.hex() == "1310"

    @pytest.mark.parametrize("specific", ["139056e500", "1190"])
    def test_signalled_or_too_high(self, specific: str) -> None:
        entry = mp4a(specific)
        assert wants_first_sample(entry) == 0
        codec = describe(entry, handler="soun", first_sample=frame(CHANNELS, SBR), timescale=96000, delta=2048)
        assert codec.string == "mp4a.40.2"


def test_quicktime_version_2() -> None:
    fields = struct.pack(">IdIIIIII", 72, 96000.0, 2, 0x7F000000, 16, 0, 0, 1024)
    wave = box(b"wave", box(b"frma", b"mp4a") + box(b"mp4a", bytes(4)) + esds("1010") + bytes(8))
    codec = describe(audio(b"mp4a", wave, version=2, rate=1, channels=3, extra=fields), handler="soun")
    assert (codec.string, codec.sample_rate, codec.channels) == ("mp4a.40.2", 96000, 2)
    assert list(children(codec.entry, 36)) == [b"esds"]
    # The rate does not fit into the entry's 16 bits.
    assert struct.unpack_from(">I", codec.entry, 32) == (0,)


def test_iso_version_1_has_no_extra_fields() -> None:
    codec = describe(audio(b"mp4a", esds("1210"), box(b"srat", bytes(8)), version=1), handler="soun")
    assert codec.string == "mp4a.40.2"
    assert list(children(codec.entry, 36)) == [b"esds"]


def test_mp3_by_mpeg4_object_type() -> None:
    # Object type 34 inside MPEG-4 audio; the frame header says MPEG-1, 44.1 kHz, joint stereo.
    codec = describe(mp4a("f8428800"), handler="soun", first_sample=bytes.fromhex("fffb9064"))
    assert (codec.family, codec.string, codec.sample_rate, codec.channels) == ("mp3", "mp4a.6B", 44100, 2)
    assert codec.problem is not None and codec.problem.code == "profile_unplayable"


@pytest.mark.parametrize(("kind", "playable"), [(b"tx3g", True), (b"wvtt", True), (b"stpp", False)])
def test_text(kind: bytes, playable: bool) -> None:
    entry = box(kind, bytes(30))
    codec = describe(entry, handler="sbtl")
    assert (codec.kind, codec.string, codec.entry, codec.playable) == ("text", kind.decode(), entry, playable)
    assert wants_first_sample(entry) == 0


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        (audio(b"enca", esds("1210")), "source_encrypted"),
        (audio(b"mp4a", esds("1210"), box(b"sinf")), "source_encrypted"),
        (audio(b"alac"), "codec_unsupported"),
        (mp4a("1210", 0xDD), "codec_unsupported"),
        (mp4a("1210", 0xA5), "codec_unsupported"),
        (mp4a(""), "source_malformed"),
        (mp4a("12"), "source_malformed"),
        (mp4a("1780000040"), "source_malformed"),
        (mp4a("1690"), "source_malformed"),
        (audio(b"mp4a"), "source_malformed"),
        (audio(b"mp4a", box(b"esds", bytes(4))), "source_malformed"),
        (audio(b"mp4a", box(b"esds", bytes.fromhex("00000000037f0001"))), "source_malformed"),
        (audio(b"mp4a", version=2), "source_malformed"),
        (audio(b"Opus", box(b"dOps", bytes(11))), "source_malformed"),
        (audio(b"fLaC", box(b"dfLa", bytes(42))), "source_malformed"),
        (audio(b"ac-3", box(b"dac3", b"\xc0\0\0")), "source_malformed"),
        (audio(b"ec-3", box(b"dec3", bytes(4))), "source_malformed"),
        (video(b"mp4a"), "source_malformed"),
    ],
)
def test_refuses(entry: bytes, code: str) -> None:
    with pytest.raises(StreamGateError) as caught:
        describe(entry, handler="soun")
    assert caught.value.code == code
