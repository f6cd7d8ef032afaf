"""What the TS kernel takes out of avcC and AudioSpecificConfig, or why it cannot."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.errors import StreamGateError
from streamgate.native.mpegts_config import adts_config, parameter_sets

SPS = bytes.fromhex("6764000aacd9")
PPS = bytes.fromhex("68ebe3cb22c0")
EXTENSION = bytes.fromhex("6d1234")
ASC = bytes([0x11, 0x90])  # AAC LC, 48 kHz, stereo


def behind_lengths(units: Sequence[bytes], width: int) -> bytes:
    return b"".join(len(unit).to_bytes(width, "big") + unit for unit in units)


def record(sps: Sequence[bytes], pps: Sequence[bytes]) -> bytes:
    """An AVCDecoderConfigurationRecord of High profile, without the fields about SPS extensions."""
    head = b"\x01\x64\x00\x0a\xff" + bytes([0xE0 | len(sps)])
    return head + behind_lengths(sps, 2) + bytes([len(pps)]) + behind_lengths(pps, 2)


AVCC = record([SPS], [PPS])


@pytest.mark.parametrize(
    "avcc, sets",
    [
        (AVCC, [SPS, PPS]),
        (AVCC + b"\xfd\xf8\xf8\x01\x00\x03" + EXTENSION, [SPS, EXTENSION, PPS]),
        (AVCC + b"\xfd\xf8\xf8\x00", [SPS, PPS]),
        (AVCC + b"\0\0", [SPS, PPS]),
        (b"\x01\x42" + AVCC[2:] + b"\xfd\xf8\xf8\x01\x00\x03" + EXTENSION, [SPS, PPS]),  # Baseline has no such fields
        (record([], []), []),
        (record([SPS], [PPS] * 63), [SPS] + [PPS] * 63),
        (record([SPS, SPS + b"2"], [PPS] * 3), [SPS, SPS + b"2", PPS, PPS, PPS]),
        (record([b"", b"\x09\x30", SPS, PPS], [SPS, b"\x65ab", PPS, b""]), [SPS, PPS]),
    ],
)
def test_parameter_sets(avcc: bytes, sets: list[bytes]) -> None:
    assert parameter_sets(avcc) == behind_lengths(sets, 4)
    assert parameter_sets(memoryview(bytearray(avcc))) == parameter_sets(avcc), "any buffer will do"


@pytest.mark.parametrize(
    "avcc, code",
    [
        (AVCC[:4] + b"\xfd" + AVCC[5:], "ts_unavailable"),
        (AVCC[:4] + b"\xfc" + AVCC[5:], "ts_unavailable"),
        (record([SPS + bytes(60_000)] * 2, []), "ts_unavailable"),
        (record([SPS], [PPS] * 64), "ts_unavailable"),
        (b"\x02" + AVCC[1:], "source_malformed"),
        (AVCC + b"\xfd\xf8\xf8\x01\x00\x04" + EXTENSION, "source_malformed"),
        *((AVCC[:n], "source_malformed") for n in range(len(AVCC))),
    ],
)
def test_records_that_cannot_be_used(avcc: bytes, code: str) -> None:
    with pytest.raises(StreamGateError) as caught:
        parameter_sets(avcc)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "asc, config",
    [
        ("1190", (1, 3, 2, 48000)),
        ("1210", (1, 4, 2, 44100)),
        ("1588", (1, 11, 1, 8000)),
        ("2b118800", (1, 6, 2, 24000)),  # SBR over AAC LC
        ("eb098800", (1, 6, 1, 24000)),  # PS over AAC LC
        ("17802ee010", (1, 6, 2, 24000)),  # the rate in Hz
        ("1138", (1, 2, 7, 64000)),
    ],
)
def test_adts_describes_the_core(asc: str, config: tuple[int, int, int, int]) -> None:
    assert adts_config(bytes.fromhex(asc)) == config


@pytest.mark.parametrize(
    "asc, code",
    [
        ("1180", "ts_unavailable"),  # channels in a program config element
        ("1194", "ts_unavailable"),  # 960 samples a frame
        ("1192", "ts_unavailable"),  # depends on a core coder
        ("8980", "ts_unavailable"),  # ER AAC LC
        ("f8e85000", "ts_unavailable"),  # object type 39
        ("17800001d010", "ts_unavailable"),  # a frequency that ADTS has no index for
        ("11", "source_malformed"),
        ("", "source_malformed"),
        ("17", "source_malformed"),
    ],
)
def test_aac_that_adts_cannot_say(asc: str, code: str) -> None:
    with pytest.raises(StreamGateError) as caught:
        adts_config(bytes.fromhex(asc))
    assert caught.value.code == code


@given(st.binary(max_size=40) | st.binary(max_size=40).map(lambda tail: AVCC[:6] + tail))
def test_any_record_is_used_or_refused(avcc: bytes) -> None:
    try:
        sets = parameter_sets(avcc)
    except StreamGateError as error:
        assert error.code in ("source_malformed", "ts_unavailable")
        return
    at = 0
    while at < len(sets):
        size = int.from_bytes(sets[at : at + 4], "big")
        assert sets[at + 4] & 31 in (7, 8, 13) and sets[at + 4 : at + 4 + size] in avcc
        at += 4 + size
    assert at == len(sets)


@given(st.binary(max_size=12))
def test_any_audio_config_is_used_or_refused(asc: bytes) -> None:
    try:
        profile, index, channels, rate = adts_config(asc)
    except StreamGateError as error:
        assert error.code in ("source_malformed", "ts_unavailable")
    else:
        assert 0 <= profile <= 3 and 0 <= index <= 12 and 1 <= channels <= 7 and 7350 <= rate <= 96000
