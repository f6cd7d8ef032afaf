"""Video codecs: strings, clean entries, ranges, and what browsers cannot play."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamgate.errors import StreamGateError
from streamgate.media.codecs import describe, wants_first_sample
from tests.media_factory import Video, make

from .sample_entries import box, children, entries, first_samples, hvcc, nclx, video, without

PQ = {"color_trc": "smpte2084", "color_primaries": "bt2020", "colorspace": "bt2020nc"}
HLG = {"color_trc": "arib-std-b67", "color_primaries": "bt2020", "colorspace": "bt2020nc"}
X265 = {"x265-params": "log-level=none", "preset": "ultrafast"}
LISTS = {"x265-params": "log-level=none:scaling-list=default"}
VPX = {"deadline": "realtime", "cpu-used": "8"}
CONFIG_BOXES = {"avc": b"avcC", "hvc": b"hvcC", "av0": b"av1C", "vp0": b"vpcC"}

MADE = {
    # Level and profile bytes are what x264 chooses for 160x90 at 25 fps.
    "h264": (Video(), "avc1.4D400B", "SDR", True),
    "h264-pq": (Video(options=PQ), "avc1.4D400B", "PQ", True),
    "h264-10": (Video(pixels="yuv420p10le"), "avc1.6E000B", "SDR", False),
    "h264-422": (Video(pixels="yuv422p"), "avc1.7A000B", "SDR", False),
    "h264-444": (Video(pixels="yuv444p"), "avc1.F4000B", "SDR", False),
    "h264-gray": (Video(pixels="gray"), "avc1.64000B", "SDR", True),
    "hevc": (Video(codec="libx265", options=X265), "hvc1.1.6.L30.90", "SDR", True),
    "hevc-pq": (Video(codec="libx265", pixels="yuv420p10le", options=X265 | PQ), "hvc1.2.4.L30.90", "PQ", True),
    "hevc-hlg": (
        Video(codec="libx265", pixels="yuv420p10le", options=LISTS | HLG),
        "hvc1.2.4.L30.90",
        "HLG",
        True,
    ),
    "hevc-444": (Video(codec="libx265", pixels="yuv444p", options=X265), "hvc1.4.10.L30.9E.8", "SDR", False),
    "av1": (Video(codec="libsvtav1", options={"preset": "12"}), "av01.0.00M.08", "SDR", True),
    "av1-pq": (
        Video(codec="libsvtav1", pixels="yuv420p10le", options={"preset": "12"} | PQ),
        "av01.0.00M.10.0.110.09.16.09.0",
        "PQ",
        True,
    ),
    "vp9": (Video(codec="libvpx-vp9", options=VPX), "vp09.00.10.08", "SDR", True),
    "vp9-444": (Video(codec="libvpx-vp9", pixels="yuv444p", options=VPX), "vp09.01.10.08.03.02.02.02.00", "SDR", False),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("video")


@pytest.mark.parametrize("name", MADE)
def test_what_encoders_make(name: str, folder: Path) -> None:
    spec, string, video_range, playable = MADE[name]
    path = make(folder / f"{name}.mp4", spec, None, seconds=0.2)
    ((handler, entry),) = entries(path)
    first = first_samples(path)[0][: wants_first_sample(entry)]
    codec = describe(entry, handler=handler, first_sample=first)
    assert (codec.kind, codec.string, codec.video_range) == ("video", string, video_range)
    assert (codec.width, codec.height, codec.pasp) == (160, 90, (1, 1))
    assert codec.playable is playable
    assert (codec.problem.code if codec.problem else None) == (None if playable else "profile_unplayable")
    # The clean entry is of the string's type, describes itself, and cleaning it again changes nothing.
    assert codec.entry[4:8].decode() == string[:4]
    assert children(codec.entry)[CONFIG_BOXES[string[:3]]] == codec.config
    assert describe(codec.entry, handler=handler, first_sample=first) == codec
    # Without the container's word the bitstream gives the same range.
    assert describe(without(entry, b"colr"), handler=handler, first_sample=first).video_range == video_range


def test_parameter_sets_in_the_samples(folder: Path) -> None:
    params = {"x265-params": "log-level=none:repeat-headers=1", "preset": "ultrafast"}
    path = make(folder / "repeat.mp4", Video(codec="libx265", options=params), None, seconds=0.2)
    ((handler, entry),) = entries(path)
    first = first_samples(path)[0]
    assert describe(entry, handler=handler, first_sample=first).string == "hev1.1.6.L30.90"
    # Nothing known of the sample, or too little: then nothing is promised.
    assert describe(entry, handler=handler).string == "hev1.1.6.L30.90"
    assert describe(entry, handler=handler, first_sample=first[:20]).string == "hev1.1.6.L30.90"


def _avc(kind: bytes, path: Path) -> tuple[bytes, bytes]:
    ((_, entry),) = entries(path)
    return entry.replace(b"avc1", kind, 1), first_samples(path)[0]


def test_avc3(folder: Path) -> None:
    path = make(folder / "plain.mp4", Video(options=PQ), None, seconds=0.2)
    entry, first = _avc(b"avc3", path)
    assert wants_first_sample(entry) > 0
    renamed = describe(entry, handler="vide", first_sample=first)
    assert renamed.string.startswith("avc1.") and renamed.entry[4:8] == b"avc1"
    assert describe(entry, handler="vide").string.startswith("avc3.")
    config = children(entry)[b"avcC"]
    sps_size = int.from_bytes(config[6:8])
    pps_size = int.from_bytes(config[9 + sps_size : 11 + sps_size])
    sps, pps = config[8 : 8 + sps_size], config[11 + sps_size : 11 + sps_size + pps_size]
    in_band = b"".join(len(unit).to_bytes(4) + unit for unit in (sps, pps)) + first
    assert describe(entry, handler="vide", first_sample=in_band).entry[4:8] == b"avc3"
    # An empty record, as live encoders write it: the sample's own SPS tells the range, whatever the entry calls itself.
    for kind in (b"avc1", b"avc3"):
        empty = video(kind, box(b"avcC", config[:5] + b"\xe0\0"))
        codec = describe(empty, handler="vide", first_sample=in_band)
        assert (codec.string[:5], codec.video_range) == ("avc3.", "PQ")
        assert describe(empty, handler="vide").video_range == "SDR"


def test_hvc1_completes_its_arrays(folder: Path) -> None:
    path = make(folder / "complete.mp4", Video(codec="libx265", options=X265), None, seconds=0.2)
    ((_, entry),) = entries(path)
    at = entry.index(b"hvcC") + 4 + 23
    assert entry[at] & 63 == 32
    loose = entry[:at] + bytes([entry[at] & 63]) + entry[at + 1 :]
    codec = describe(loose, handler="vide", first_sample=first_samples(path)[0])
    assert codec.string.startswith("hvc1.") and codec.config[23] == 0xA0


@pytest.mark.parametrize(
    ("record", "string"),
    [
        # ISO/IEC 14496-15 annex E.3 gives the second one as its example.
        (hvcc(1, "b00000000000", flags=0x60000000), "hev1.1.6.L93.B0"),
        (hvcc(4, "b02300000000", flags=0x82000000, level=120, space=1, high=True), "hev1.A4.41.H120.B0.23"),
        (hvcc(2, "000000000000", flags=0x20000000, level=150), "hev1.2.4.L150"),
        (hvcc(4, "9d0800000000", flags=0x08000000, level=120), "hev1.4.10.L120.9D.8"),
        (hvcc(1, "900000000001", flags=0x60000000), "hev1.1.6.L93.90.0.0.0.0.1"),
    ],
)
def test_hevc_strings(record: bytes, string: str) -> None:
    # Without parameter sets in the record it is hev1, whatever the entry calls itself.
    assert describe(video(b"hvc1", record), handler="vide").string == string


@pytest.mark.parametrize(
    ("record", "colr", "string"),
    [
        # The binding's own examples (section 5).
        ("81044e00", nclx(9, 16, 9), "av01.0.04M.10.0.112.09.16.09.0"),
        ("81044c00", nclx(1, 1, 1), "av01.0.04M.10"),
        ("81044c00", b"", "av01.0.04M.10"),
        ("81090c00", nclx(1, 1, 1, full=True), "av01.0.09M.08.0.110.01.01.01.1"),
        ("81098c00", b"", "av01.0.09H.08"),
        ("81041c00", b"", "av01.0.04M.08.1.110.02.02.02.0"),
        ("81240000", b"", "av01.1.04M.08.0.000.02.02.02.0"),
        ("81446800", b"", "av01.2.04M.12.0.100.02.02.02.0"),
    ],
)
def test_av1_strings(record: str, colr: bytes, string: str) -> None:
    codec = describe(video(b"av01", box(b"av1C", bytes.fromhex(record)), colr), handler="vide")
    assert codec.string == string
    assert codec.playable is (string[5] == "0")


@pytest.mark.parametrize(
    ("record", "string", "playable"),
    [
        # The binding's own examples.
        ("020aa3091009", "vp09.02.10.10.01.09.16.09.01", True),
        ("020aa2010101", "vp09.02.10.10", True),
        ("000a82020202", "vp09.00.10.08", True),
        ("000a80020202", "vp09.00.10.08.00.02.02.02.00", True),
        ("000082020202", "vp09.00.21.08", True),
        ("011f84010101", "vp09.01.31.08.02.01.01.01.00", False),
        ("031fa6020202", "vp09.03.31.10.03.02.02.02.00", False),
    ],
)
def test_vp9_strings(record: str, string: str, playable: bool) -> None:
    entry = video(b"vp09", box(b"vpcC", bytes.fromhex("01000000" + record + "0000")))
    codec = describe(entry, handler="vide")
    assert (codec.string, codec.playable) == (string, playable)
    assert codec.video_range == ("PQ" if ".16." in string else "SDR")


AVCC = box(b"avcC", bytes.fromhex("0164001fffe1000467640000010003680000"))


def test_children_that_stay_and_go() -> None:
    pasp = box(b"pasp", bytes.fromhex("0000000400000003"))
    kept = [nclx(1, 1, 1), pasp, box(b"mdcv", bytes(24)), box(b"clli", bytes(4)), box(b"btrt", bytes(12))]
    # QuickTime ends the list with four zero bytes.
    entry = video(b"avc1", box(b"fiel", b"\1\0"), AVCC, box(b"gama", bytes(4)), *kept, bytes(4))
    codec = describe(entry, handler="vide")
    assert list(children(codec.entry)) == [b"avcC", b"colr", b"pasp", b"mdcv", b"clli", b"btrt"]
    assert codec.pasp == (4, 3)
    assert (codec.width, codec.height) == (640, 360)


def test_quicktime_colours_become_iso() -> None:
    codec = describe(video(b"avc1", AVCC, box(b"colr", b"nclc" + bytes.fromhex("000900120009"))), handler="vide")
    assert codec.video_range == "HLG"
    assert children(codec.entry)[b"colr"] == b"nclx" + bytes.fromhex("00090012000900")


@pytest.mark.parametrize(
    ("entry", "handler", "code"),
    [
        (video(b"encv", AVCC), "vide", "source_encrypted"),
        (video(b"avc1", AVCC, box(b"sinf")), "vide", "source_encrypted"),
        (video(b"mp4v", AVCC), "vide", "codec_unsupported"),
        (video(b"dvh1", AVCC), "vide", "codec_unsupported"),
        (video(b"vp09", box(b"vpcC", bytes(12))), "vide", "codec_unsupported"),
        (video(b"avc1", AVCC), "soun", "source_malformed"),
        (video(b"avc1", AVCC), "meta", "source_malformed"),
        (video(b"avc1"), "vide", "source_malformed"),
        (video(b"avc1", AVCC, width=0), "vide", "source_malformed"),
        (video(b"avc1", box(b"avcC", bytes(7))), "vide", "source_malformed"),
        (video(b"avc1", box(b"avcC", bytes.fromhex("0164001fffe10009"))), "vide", "source_malformed"),
        (video(b"av01", box(b"av1C", bytes(4))), "vide", "source_malformed"),
        (video(b"hvc1", box(b"hvcC", bytes(23))), "vide", "source_malformed"),
        (video(b"avc1", AVCC)[:-1], "vide", "source_malformed"),
        (b"", "vide", "source_malformed"),
        (box(b"avc1", bytes(60)), "vide", "source_malformed"),
    ],
)
def test_refuses(entry: bytes, handler: str, code: str) -> None:
    with pytest.raises(StreamGateError) as caught:
        describe(entry, handler=handler)
    assert caught.value.code == code
