"""WebVTT may change only together with TEXT_FORMAT_VERSION: text renditions are named after it, and immutable."""

from __future__ import annotations

from hashlib import sha256

from streamgate.media.assembly import TEXT_FORMAT_VERSION
from streamgate.media.subtitles import Cue, write_segment, write_whole

GOLDEN = {1: "51d72a1a4c4b77ffb2f15bf5bc6654be5bcbfb9137b5efed89b7d152ce1cec2d"}

SHEET = "STYLE\n::cue { color: lime }\n\n"
CUES = (
    Cue(-500, 200, "before the start"),
    Cue(0, 4000, "one", "line:0 align:start", "first", SHEET),
    Cue(3999, 4001, "<i>two</i>\n&amp; <00:00:04.000>three"),
    Cue(4000, 9000, "größer", "", "second", SHEET),
    Cue(7_200_000, 360_000_000, "a hundred hours"),
)


def written() -> bytes:
    spans = ((0, 4000), (4000, 8000), (8000, 12_000), (7_199_999, 7_200_001))
    made = [write_segment(CUES, start_ms=start, end_ms=end, mpegts=126_000) for start, end in spans]
    made.append(write_segment((), start_ms=0, end_ms=4000, mpegts=(1 << 33) + 7))
    made += [write_whole(CUES, shift_ms=shift) for shift in (0, 1500, -200)]
    return b"".join(made)


def test_the_bytes_are_those_of_this_format_version() -> None:
    digest = sha256(written()).hexdigest()
    assert digest == GOLDEN.get(TEXT_FORMAT_VERSION), (
        f"subtitles are written in other bytes than version {TEXT_FORMAT_VERSION} did: raise TEXT_FORMAT_VERSION in "
        f"streamgate/media/assembly.py, and add its digest {digest} to GOLDEN in this test"
    )
