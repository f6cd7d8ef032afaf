"""Interface of native/mpegts.pyx: MPEG-2 transport stream segments of H.264 and AAC for HLS."""

from typing import final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

from streamgate.native.samples import Track

@final
class Muxer:
    """Makes the TS segments of one presentation, each alone and in any order (RFC 8216 section 3.2); immutable.

    Program 1 has its PMT on PID 0x1000, video on 0x100, audio on 0x101; PCRs are on the video's PID if there is video.
    A segment begins with PAT and PMT; each access unit is one PES packet; a few AAC frames share one.
    PTS and DTS are ``(time + shift) * 90000 / timescale`` rounded half up, modulo 2**33 (ISO/IEC 13818-1 2.4.3.7);
    where composition offsets are negative, each DTS is earlier by the largest of them: no DTS may follow its PTS.
    Times below 0 wrap as well; a presentation's shift leaves none.
    Whatever depends on other segments (continuity counters, the clock) follows from the index.
    """

    def __init__(
        self,
        video: Track | None,
        audio: Track | None,
        *,
        avcc: Buffer,
        asc: Buffer,
        video_starts: NDArray[np.uint32],
        audio_starts: NDArray[np.uint32],
        video_shift: int,
        audio_shift: int,
    ) -> None:
        """Lay every segment out once, from the index alone.

        ``avcc`` is an AVCDecoderConfigurationRecord (ISO/IEC 14496-15 section 5.3.3.1.2), ``asc`` an
        AudioSpecificConfig (ISO/IEC 14496-3 section 1.6.2.1); each is ignored without its track.
        ``starts``: shape (segments + 1,), the sample number at which each segment begins, and the end of the last one;
        the shorter one's track has no samples in further segments. Shifts are ticks of the track.

        Raises ``ts_unavailable`` where the samples have no form in TS (NAL unit lengths of other than 4 bytes, AAC
        that ADTS cannot describe, an hour without a sample, 64 MiB of mere headers in a segment, no track at all),
        ``source_malformed`` where a record is broken.
        """
    @property
    def segments(self) -> int:
        """The number of segments: that of the longer track."""
    def segment(self, n: int, video: Buffer, audio: Buffer) -> bytes:
        """Segment ``n`` of the concatenated payloads of its video and its audio samples. The GIL is released.

        Access unit delimiters and copies of avcC's parameter sets are replaced by the muxer's own; all else is kept.

        Raises ``segment_not_found``, ``source_truncated`` where a payload has not the size that the index says,
        ``source_malformed`` where a NAL unit runs over its sample.
        """
    def sizes(self) -> NDArray[np.uint64]:
        """Bytes of every segment, shape (segments,), from the index alone."""
