"""Parametric stereo that nobody signals. libav is the oracle: what it decodes of a stream with PS has two different channels."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.errors import StreamGateError
from streamgate.media.codecs import asc, describe, sbr_payload, wants_first_sample
from streamgate.media.codecs.bits import Bits
from streamgate.media.codecs.sbr import ends_with_ps, ends_with_sbr
from streamgate.media.codecs.sbr_bands import Bands, Header, bands
from tests.media_factory import Audio, make

from .sample_entries import mp4a

# ps_data (ISO/IEC 14496-3 section 8.6.4.1): ten coarse intensity differences, the first +6 steps and all others as it.
PS = "1" "1" "000" "0" "0" + "0" "01" + "0" + "11111110" + "0" * 9  # fmt: skip
RATES = (8000, 11025, 12000, 16000, 22050, 24000)


def bits_of(value: int, count: int) -> str:
    return f"{value:0{count}b}"


def codes(lengths: tuple[int, ...], longest: int) -> list[str]:
    """The canonical codes of up to ``longest`` bits."""
    found, code = [], 0
    for size, count in enumerate(lengths[:longest], 1):
        code <<= 1
        found += [bits_of(code + n, size) for n in range(count)]
        code += count
    return found


class Writer:
    """Writes SBR data of one channel as ``chance`` decides, with values that a decoder takes."""

    def __init__(self, chance: random.Random, core_rate: int) -> None:
        self.chance, self.rate = chance, core_rate

    def header(self) -> tuple[Header, str]:
        draw = self.chance.randrange
        fields = {"amp_res": draw(2), "start": draw(16), "stop": draw(16), "crossover": draw(3)}
        more = {"freq_scale": draw(4), "alter_scale": draw(2), "noise_bands": draw(4)} if draw(2) else {}
        limiter = draw(2)
        text = bits_of(fields["amp_res"], 1) + bits_of(fields["start"], 4) + bits_of(fields["stop"], 4)
        text += bits_of(fields["crossover"], 3) + "00" + ("1" if more else "0") + bits_of(limiter, 1)
        if more:
            text += bits_of(more["freq_scale"], 2) + bits_of(more["alter_scale"], 1) + bits_of(more["noise_bands"], 2)
        return Header(**fields, **more), text + "101010" * limiter

    def grid(self) -> tuple[int, list[int], str]:
        """Class, resolutions and bits; the borders are as wide as the class has them with relative borders of 2 slots."""
        draw = self.chance.randrange
        kind = draw(4)
        if kind == 0:
            power, fine = draw(3), draw(2)
            return kind, [fine] * (1 << power), "00" + bits_of(power, 2) + bits_of(fine, 1)
        counts = [draw(3) for _ in range(2 if kind == 3 else 1)]
        number = 1 + sum(counts)
        high = [draw(2) for _ in range(number)]
        pointer = "0" * {1: 1, 2: 2, 3: 2, 4: 3, 5: 3}[number]
        text = bits_of(kind, 2) + "00" * len(counts) + "".join(bits_of(n, 2) for n in counts) + "00" * sum(counts)
        return kind, high, text + pointer + "".join(map(str, high[::-1] if kind == 1 else high))

    def values(self, count: int, lengths: tuple[int, ...], first: int, along_time: bool) -> str:
        """Small steps around a value in the middle; along time there are none, for the first frame has nothing before it."""
        if along_time:
            return codes(lengths, 3)[0] * count
        start = bits_of(1 << (first - 1), first)
        return start + "".join(self.chance.choice(codes(lengths, 4)) for _ in range(count - 1))

    def data(self, header: Header, counts: Bands, extension: str) -> str:
        draw = self.chance.randrange
        kind, high, text = self.grid()
        along = [bool(n and draw(2)) for n in range(len(high))]
        noises = 2 if len(high) > 1 else 1
        text = ("1" + "0000" if draw(2) else "0") + text + "".join(str(int(a)) for a in along)
        text += "0" * noises + "".join(bits_of(draw(4), 2) for _ in range(counts.noise))
        coarse = header.amp_res and not (kind == 0 and len(high) == 1)
        time, frequency = sbr_payload._TIME_3, sbr_payload._FREQUENCY_3
        if not coarse:
            time, frequency = sbr_payload._TIME_1_5, sbr_payload._FREQUENCY_1_5
        for fine, by_time in zip(high, along, strict=True):
            count = counts.high if fine else counts.low
            text += self.values(count, time if by_time else frequency, 6 if coarse else 7, by_time)
        for _ in range(noises):
            text += self.values(counts.noise, sbr_payload._NOISE_FREQUENCY, 5, False)
        text += "1" + "".join(str(draw(2)) for _ in range(counts.high)) if draw(2) else "0"
        return text + extension

    def payload(self, extension: str) -> str:
        """An extension_payload with SBR, with or without CRC, filled up to whole bytes."""
        header, text = self.header()
        try:
            counts = bands(header, 2 * self.rate)
        except StreamGateError:
            counts = Bands(7, 14, 2)  # nothing fits a header that is impossible
        crc = self.chance.randrange(2)
        whole = ("1110" + "0" * 10 if crc else "1101") + "1" + text + self.data(header, counts, extension)
        return whole + "0" * (-len(whole) % 8)


def extended(identity: int, content: str) -> str:
    """bs_extended_data with one extension."""
    whole = bits_of(identity, 2) + content
    size = -(-len(whole) // 8)
    long = "1111" + bits_of(size - 15, 8) if size >= 15 else bits_of(size, 4)
    return "1" + long + whole.ljust(8 * size, "0")


@cache
def cores(rate: int) -> list[bytes]:
    """Mono AAC-LC frames by libav's encoder."""
    with tempfile.TemporaryDirectory() as folder:
        path = make(Path(folder) / "core.m4a", None, Audio(rate=rate, layout="mono", bitrate=rate), seconds=6144 / rate)
        with av.open(str(path)) as source:
            return [bytes(packet) for packet in source.demux() if packet.size][:5]


def with_sbr(frame: bytes, payload: str) -> bytes:
    """The frame with a fill element before its ID_END."""
    bits = "".join(f"{byte:08b}" for byte in frame)
    bits = bits[: bits.rindex("1") - 2]  # ID_END is 111, and zeros behind it
    size = len(payload) // 8
    bits += "110" + (bits_of(size, 4) if size < 15 else "1111" + bits_of(size - 14, 8)) + payload + "111"
    bits += "0" * (-len(bits) % 8)
    return int("1" + bits, 2).to_bytes(len(bits) // 8 + 1)[1:]


def specific(rate: int) -> bytes:
    """An AudioSpecificConfig: mono AAC-LC, nothing said of SBR."""
    return int(f"00010{asc.RATES.index(rate):04b}0001000", 2).to_bytes(2)


def sounds_stereo(frames: list[bytes], rate: int) -> bool:
    """Whether libav decodes two channels that differ."""
    decoder = av.CodecContext.create("aac", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.extradata = specific(rate)
    differ = False
    for frame in frames:
        for decoded in decoder.decode(av.Packet(frame)):
            wave = decoded.to_ndarray()
            differ |= len(wave) == 2 and bool(np.abs(wave[0] - wave[1]).max() > 1e-4)
    return differ


def streams(extension: str, count: int = 12) -> Iterator[tuple[int, list[bytes]]]:
    for rate in RATES:
        for seed in range(count):
            writer = Writer(random.Random(f"{rate} {seed}"), rate)
            payload = writer.payload(extension)
            yield rate, [with_sbr(core, payload) for core in cores(rate)]


def test_found_where_libav_hears_it() -> None:
    heard = 0
    for rate, frames in streams(extended(2, PS)):
        stereo = sounds_stereo(frames, rate)
        heard += stereo
        assert ends_with_ps(frames[0], rate) is stereo
    assert heard >= 20


@pytest.mark.parametrize("extension", ["0", extended(0, "1" * 40), extended(1, PS), extended(3, PS * 5)])
def test_not_found_without(extension: str) -> None:
    for rate, frames in streams(extension, 3):
        assert ends_with_sbr(frames[0])
        assert not ends_with_ps(frames[0], rate)
        assert not sounds_stereo(frames, rate)


def playable_stream() -> tuple[int, list[bytes]]:
    return next(
        (rate, frames) for rate, frames in streams(extended(2, PS)) if rate == 24000 and sounds_stereo(frames, rate)
    )


def test_is_in_the_string() -> None:
    rate, frames = playable_stream()
    entry = mp4a(specific(rate).hex(), rate=rate)
    assert wants_first_sample(entry) >= len(frames[0])
    codec = describe(entry, handler="soun", first_sample=frames[0], timescale=rate, delta=1024)
    assert (codec.string, codec.sample_rate, codec.channels) == ("mp4a.40.29", 48000, 2)
    assert codec.config == specific(rate)
    mono = describe(entry, handler="soun", first_sample=cores(rate)[0], timescale=2 * rate, delta=2048)
    assert (mono.string, mono.sample_rate, mono.channels) == ("mp4a.40.5", 48000, 1)


def test_beside_sbr_that_is_signalled() -> None:
    rate, frames = playable_stream()
    sbr = bits_of(int.from_bytes(specific(rate)), 16) + bits_of(0x2B7, 11) + bits_of(5, 5) + "1" + bits_of(3, 4)
    no_ps = sbr + bits_of(0x548, 11) + "0"
    for bits, string in ((sbr, "mp4a.40.29"), (no_ps, "mp4a.40.5")):
        config = int(bits.ljust(56, "0"), 2).to_bytes(7)
        codec = describe(mp4a(config.hex()), handler="soun", first_sample=frames[0], timescale=24000, delta=1024)
        assert codec.string == string


@pytest.mark.parametrize("name", ["_TIME_1_5", "_FREQUENCY_1_5", "_TIME_3", "_FREQUENCY_3", "_NOISE_TIME"])
def test_code_books_are_complete(name: str) -> None:
    lengths = getattr(sbr_payload, name)
    assert sum(lengths) == (121 if "1_5" in name else 63)
    assert sum(count / 2**size for size, count in enumerate(lengths, 1)) == 1
    for code in codes(lengths, len(lengths)):
        bits = Bits(int(code.ljust(24, "0"), 2).to_bytes(3))
        sbr_payload._code(bits, lengths)
        assert bits.position == len(code)


@given(st.binary(max_size=400), st.sampled_from(RATES))
def test_any_bytes_have_an_answer(data: bytes, rate: int) -> None:
    assert sbr_payload.has_parametric_stereo(data, 4, rate) in (True, False)
    assert ends_with_ps(data, rate) <= ends_with_sbr(data)
