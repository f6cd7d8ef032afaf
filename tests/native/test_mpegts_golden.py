"""The TS kernel's bytes may change only together with TS_FORMAT_VERSION: renditions are named after it, and immutable."""

from __future__ import annotations

from hashlib import sha256

from streamgate.media.assembly import TS_FORMAT_VERSION
from tests.native.test_mpegts import DELIMITER, cut, sample, source
from tests.native.test_mpegts_config import PPS, SPS
from tests.native.ts_checker import check

GOLDEN = {1: "db7c74c3f15b03ea1494ffe68d50ab31533602d9e0770cecf40e9592dba66624"}

NEARLY_WRAPPED = (1 << 33) - 20_000


def picture(n: int) -> bytes:
    """An access unit; some are larger than a packet, some have in band what is dropped, one has nothing at all."""
    if n == 9:
        return b""
    coded = bytes([0x65 if n % 8 == 0 else 0x41]) + bytes([n + 1]) * (n * 97 % 700)
    return sample(*(DELIMITER, SPS, PPS, b"", b"\x06\x05\x01\x80")[: n % 6], coded)


def segments() -> list[bytes]:
    count, frames = 24, 70
    pictures = source(
        [picture(n) for n in range(count)],
        [0, 8, 16, count],
        timescale=24_000,
        deltas=[1001 + 9000 * (n == 13) for n in range(count)],  # a gap: PCRs without a picture
        offsets=[(0, 2002, -1001, 0)[n % 4] for n in range(count)],
        syncs=[0, 8, 12, 16],
        shift=1001,
    )
    sounds = source(
        [bytes([n + 1]) * (n * 53 % 400 + 3000 * (n == 20)) for n in range(frames)],
        [0, 15, 37, 50, frames],  # more than there is video
        timescale=44_100,
        deltas=[1024 + 3000 * (n == 30) for n in range(frames)],
    )
    late = source(
        [picture(n) for n in range(count)],
        [0, 16, count],
        timescale=90_000,
        deltas=3600,
        syncs=[0, 16],
        shift=NEARLY_WRAPPED,
    )
    return [*cut(pictures, sounds), *cut(late, None), *cut(None, sounds, asc=b"\x12\x10")]


def test_the_bytes_are_those_of_this_format_version() -> None:
    made = segments()
    assert check(made[:4]) and check(made[4:6]) and check(made[6:])
    digest = sha256(b"".join(made)).hexdigest()
    assert digest == GOLDEN.get(TS_FORMAT_VERSION), (
        f"the TS kernel writes other bytes than version {TS_FORMAT_VERSION} did: raise TS_FORMAT_VERSION in "
        f"streamgate/media/assembly.py, and add its digest {digest} to GOLDEN in this test"
    )
