"""Renditions: the deliverable versions of a track, and the segments they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from streamgate.errors import StreamGateError
from streamgate.media import bandwidth, languages, subtitles
from streamgate.media.codecs import Codec
from streamgate.media.frame_rate import frame_rate
from streamgate.media.timeline import Ints
from streamgate.native import cmaf
from streamgate.native.gather import Plan
from streamgate.native.samples import Track

TRACK_ID = 1
MPEGTS_CLOCK = 90_000
MPEGTS_WRAP = 1 << 33
# ISO/IEC 23000-19 section 7.2: cmfc is the structural brand of a CMAF track file, cmfs that of a CMAF segment.
# iso6 brings default-base-is-moof and tfdt; msdh says DASH media segment (ISO/IEC 23009-1 section 6.3.4.2).
INIT_BRANDS = ("iso6", "cmfc")
SEGMENT_BRANDS = ("msdh", "cmfs")
NOT_CMAF = frozenset(("cmfc", "cmfs"))


def microseconds(times: Ints, timescale: int) -> list[int]:
    """``times`` (ticks) rounded to microseconds each: differences of these never drift, however many are added up."""
    return [(2_000_000 * t + timescale) // (2 * timescale) for t in times.tolist()]


@dataclass(frozen=True, eq=False)
class Rendition:
    """A video or audio track, passed through sample by sample.

    ``times``: start of each segment and end of the last, in ticks on the presentation's shifted clock, shape
    (segments + 1,). ``starts``: the sample numbers that belong to them, same shape; ``aligned``: the same over the
    segments of the whole presentation, where equal neighbours stand for a segment without a sample of this track.
    ``keyframe_samples``, ``keyframe_times``: the trick-play keyframes, shapes (n,) and (n + 1,).
    ``shift``: ticks between the track's own decoding times and that clock. ``decoded``: when the first sample is decoded
    on it, counted from the lowest composition offset as MPEG-TS does.
    """

    name: str
    kind: Literal["video", "audio"]
    source: int
    track: Track
    codec: Codec
    language: str
    label: str
    default: bool
    forced: bool
    starts: NDArray[np.uint32]
    aligned: NDArray[np.uint32]
    times: NDArray[np.int64]
    keyframe_samples: NDArray[np.uint32]
    keyframe_times: NDArray[np.int64]
    shift: int
    decoded: int
    target_duration: int
    independent: bool

    @property
    def timescale(self) -> int:
        return self.track.timescale

    @property
    def segments(self) -> int:
        return len(self.starts) - 1

    @property
    def keyframes(self) -> int:
        """How many keyframe segments there are for trick play."""
        return len(self.keyframe_samples)

    @property
    def durations(self) -> NDArray[np.int64]:
        """Ticks that each segment lasts, shape (segments,)."""
        return np.diff(self.times)

    @cached_property
    def _init_brands(self) -> tuple[str, ...]:
        return INIT_BRANDS if self.independent else tuple(b for b in INIT_BRANDS if b not in NOT_CMAF)

    @cached_property
    def _segment_brands(self) -> tuple[str, ...]:
        return SEGMENT_BRANDS if self.independent else tuple(b for b in SEGMENT_BRANDS if b not in NOT_CMAF)

    def init(self) -> bytes:
        """The init segment."""
        tag = languages.bcp47(self.language)
        return cmaf.init_segment(
            track_id=TRACK_ID,
            handler=self.track.handler,
            timescale=self.timescale,
            entry=self.codec.entry,
            language=tag if "-" in tag else languages.iso639_2(tag),
            name="",
            width=self.track.width or float(self.codec.width),
            height=self.track.height or float(self.codec.height),
            matrix=self.track.matrix,
            brands=self._init_brands,
        )

    def segment(self, n: int) -> Plan:
        """Segment ``n``, from 0. Raises ``segment_not_found``."""
        if not 0 <= n < self.segments:
            raise StreamGateError("segment_not_found", f"{self.name} has {self.segments} segments")
        first, last = int(self.starts[n]), int(self.starts[n + 1])
        return cmaf.segment(
            self.track, first, last, track_id=TRACK_ID, sequence=n + 1, shift=self.shift, brands=self._segment_brands
        )

    def keyframe(self, n: int) -> Plan:
        """Keyframe segment ``n``, from 0: a sync sample that lasts until the next one. Raises ``segment_not_found``."""
        if not 0 <= n < self.keyframes:
            raise StreamGateError("segment_not_found", f"{self.name} has {self.keyframes} keyframes")
        return cmaf.keyframe_segment(
            self.track,
            int(self.keyframe_samples[n]),
            int(self.keyframe_times[n + 1] - self.keyframe_times[n]),
            track_id=TRACK_ID,
            sequence=n + 1,
            shift=self.shift,
            brands=self._segment_brands,
        )

    def ts_payload(self, n: int) -> Plan:
        """The samples that MPEG-TS segment ``n`` takes from this track; none where it has no sample then."""
        if n + 1 >= len(self.aligned):
            return Plan(b"", [])
        return Plan(b"", self.track.ranges(int(self.aligned[n]), int(self.aligned[n + 1])))

    @cached_property
    def sizes(self) -> NDArray[np.uint64]:
        """Bytes of each segment, shape (segments,)."""
        return cmaf.segment_sizes(self.track, self.starts, brands=self._segment_brands)

    @cached_property
    def bandwidth(self) -> int:
        """Peak segment bit rate in bits per second."""
        return bandwidth.peak(self.sizes, self.durations, self.timescale, self.target_duration)

    @cached_property
    def average_bandwidth(self) -> int:
        """Bits per second over the whole rendition."""
        return bandwidth.average(self.sizes, self.durations, self.timescale)

    @cached_property
    def buffer_time(self) -> float:
        """Seconds to buffer at ``bandwidth`` before playing, so that no sample comes late."""
        return bandwidth.buffer_time(self.track, self.starts, self.sizes, self.bandwidth)

    @cached_property
    def keyframe_bandwidths(self) -> tuple[int, int]:
        """Peak and average bit rate of the keyframe segments. There must be keyframes."""
        samples = self.track.sizes[self.keyframe_samples].astype(np.uint64)
        # The boxes around one sample are the same for each of them.
        sizes = samples + np.uint64(self.keyframe(0).size - int(samples[0]))
        lasts = np.diff(self.keyframe_times)
        target = max(1, -(-int(lasts.max()) // self.timescale))
        peak = bandwidth.peak(sizes, lasts, self.timescale, target)
        return peak, bandwidth.average(sizes, lasts, self.timescale)

    @cached_property
    def frame_rate(self) -> Fraction | None:
        """Pictures per second at most; None for audio and for a single picture."""
        return frame_rate(self.track) if self.kind == "video" else None

    @property
    def rotated(self) -> bool:
        """Whether the matrix (a, b, u, c, d, v, x, y, w) turns the picture by a quarter (ISO/IEC 14496-12, 8.3.2)."""
        a, b, _, c, d = self.track.matrix[:5]
        return abs(b) + abs(c) > abs(a) + abs(d)

    @property
    def sample_aspect(self) -> tuple[int, int]:
        """Width to height of a pixel as displayed."""
        horizontal, vertical = self.codec.pasp
        return (vertical, horizontal) if self.rotated else (horizontal, vertical)

    @property
    def _displayed(self) -> tuple[int, int]:
        horizontal, vertical = self.codec.pasp
        width = max(1, round(Fraction(self.codec.width * horizontal, vertical))) if self.codec.width else 0
        return (self.codec.height, width) if self.rotated else (width, self.codec.height)

    @property
    def width(self) -> int:
        """Displayed width in square pixels, after rotation; 0 for audio."""
        return self._displayed[0]

    @property
    def height(self) -> int:
        """Displayed height, after rotation; 0 for audio."""
        return self._displayed[1]


@dataclass(frozen=True, eq=False)
class TextRendition:
    """Subtitles as WebVTT, cut where the presentation is.

    ``times``: start of each segment and end of the last, on the presentation's shifted clock, in 1/``timescale`` s.
    ``shift``: seconds from time 0 of that clock to time 0 of the cues; ``zero``: to the start of the presentation.
    """

    name: str
    cues: Sequence[subtitles.Cue]
    language: str
    label: str
    default: bool
    forced: bool
    timescale: int
    times: Ints
    shift: Fraction
    zero: Fraction
    kind: Literal["text"] = "text"

    @property
    def segments(self) -> int:
        return len(self.times) - 1

    def segment(self, n: int) -> bytes:
        """WebVTT segment ``n``, from 0. Raises ``segment_not_found``."""
        if not 0 <= n < self.segments:
            raise StreamGateError("segment_not_found", f"{self.name} has {self.segments} segments")
        start, end = (Fraction(int(t), self.timescale) - self.shift for t in self.times[n : n + 2])
        # Where time 0 of the cues is on the media's clock (RFC 8216 section 3.5).
        local_zero = round(self.shift * MPEGTS_CLOCK) % MPEGTS_WRAP
        start_ms = int(start * 1000 // 1) if n else min(0, int(start * 1000 // 1))
        return subtitles.write_segment(self.cues, start_ms=start_ms, end_ms=-int(-end * 1000 // 1), mpegts=local_zero)

    @cached_property
    def _whole(self) -> bytes:
        return subtitles.write_whole(self.cues, shift_ms=round((self.shift - self.zero) * 1000))

    def whole(self) -> bytes:
        """All cues in one WebVTT file, with times from the start of the presentation."""
        return self._whole

    @property
    def bandwidth(self) -> int:
        """Average bit rate of the whole file in bits per second."""
        lasts = int(self.times[-1] - self.times[0])
        return max(1, -(-8 * len(self._whole) * self.timescale // max(1, lasts)))
