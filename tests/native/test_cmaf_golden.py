"""The packager's bytes may change only together with FORMAT_VERSION: renditions are named after it, and immutable."""

from hashlib import sha256

from streamgate.native.cmaf import FORMAT_VERSION, init_segment, keyframe_segment, segment
from streamgate.native.samples import Track

ENTRY = bytes.fromhex("00000010") + b"test" + bytes(range(8))
BRANDS = ("cmf2", "cmfc", "iso6")
SOURCE = bytes(n * 7 & 255 for n in range(4096))

GOLDEN = {1: "d3ffa6a072f4782ac9229c0f3d7c6325abb42242ad0b888c0c87aced419d93c3"}


def packaged() -> bytes:
    matrix = (0, 0x10000, 0, -0x10000, 0, 0, 0x5A0000, 0, 0x40000000)
    count = 24
    plain = Track.from_samples(
        timescale=24_000,
        entries=[ENTRY],
        sizes=[40] * count,
        deltas=[1001] * count,
        positions=[50 * n for n in range(count)],
    )
    uneven = Track.from_samples(
        timescale=24_000,
        entries=[ENTRY],
        sizes=[10 + 3 * n for n in range(count)],
        deltas=[1001 + (n == 5) for n in range(count)],
        offsets=[(2002, 3003, -1001, 0)[n % 4] for n in range(count)],
        syncs=[0, 8, 12],
        positions=[100 * n for n in range(count)],
        first_dts=500,
    )
    parts = [
        init_segment(
            track_id=track_id,
            handler=handler,
            timescale=24_000,
            entry=ENTRY,
            language=language,
            name="Größe",
            width=90.5,
            height=160,
            matrix=matrix,
            brands=BRANDS,
        )
        for track_id, handler, language in ((1, "vide", "deu"), (2, "soun", "pt-BR"), (3, "text", "und"))
    ]
    for track in (plain, uneven):
        for n, (first, last) in enumerate(((0, 8), (8, 12), (12, 23), (23, 24))):
            plan = segment(track, first, last, track_id=1, sequence=n + 1, shift=77, brands=BRANDS)
            parts.append(plan.from_buffer(SOURCE, 0))
        plan = keyframe_segment(track, 12, 8008, track_id=1, sequence=2, shift=1001, brands=BRANDS)
        parts.append(plan.from_buffer(SOURCE, 0))
    huge = Track.from_samples(timescale=1, entries=[ENTRY], sizes=[1 << 31] * 2, deltas=[1, 1], positions=[0, 1 << 31])
    parts.append(segment(huge, 0, 2, track_id=1, sequence=1, shift=0, brands=()).head)
    return b"".join(parts)


def test_the_bytes_are_those_of_this_format_version() -> None:
    digest = sha256(packaged()).hexdigest()
    assert digest == GOLDEN.get(FORMAT_VERSION), (
        f"the packager writes other bytes than version {FORMAT_VERSION} did: raise FORMAT_VERSION in native/cmaf.pyx, "
        f"and add its digest {digest} to GOLDEN in this test"
    )
