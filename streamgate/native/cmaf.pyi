"""CMAF init and media segments (ISO/IEC 23000-19 section 7; boxes of ISO/IEC 14496-12)."""

import numpy as np
from numpy.typing import NDArray

from streamgate.native.gather import Plan
from streamgate.native.samples import Track

FORMAT_VERSION: int
"""Version of the bytes that this module writes: the same input and version always give the same bytes."""

def init_segment(
    *,
    track_id: int,
    handler: str,
    timescale: int,
    entry: bytes,
    language: str,
    name: str,
    width: float,
    height: float,
    matrix: tuple[int, ...],
    brands: tuple[str, ...],
) -> bytes:
    """The CMAF header of one track: ftyp and moov with mvex, without an edit list (ISO/IEC 23000-19 section 7.3.2.1).

    ``entry`` is a whole sample entry box and is copied verbatim; ``width`` and ``height`` are pixels (0 for sound);
    ``matrix`` holds the nine raw numbers of tkhd; the first of ``brands`` is the major one.
    ``language`` of three small letters goes to mdhd; another language tag goes to elng, anything else is ``und``.

    Raises ``source_malformed`` for an entry whose size lies, a timescale of zero and pictures of 65536 pixels or more.
    """

def segment(
    track: Track,
    first: int,
    last: int,
    *,
    track_id: int,
    sequence: int,
    shift: int,
    brands: tuple[str, ...],
) -> Plan:
    """The CMAF segment of samples [first, last): styp (where there are brands), moof and mdat.

    ``shift`` (ticks of the track) is added to every decoding time.
    The moof has the fewest fields that say the same: what is constant becomes a default of tfhd.

    Raises ``segment_not_found`` for an empty range or one beyond the track, ``source_malformed`` where a shifted
    decoding time is negative, ``source_too_complex`` where the moof would exceed 2 GiB.
    """

def keyframe_segment(
    track: Track,
    sample: int,
    duration: int,
    *,
    track_id: int,
    sequence: int,
    shift: int,
    brands: tuple[str, ...],
) -> Plan:
    """A segment of one sync sample that lasts ``duration`` ticks and is shown at its own time plus ``shift``.

    Its composition offset is 0, so baseMediaDecodeTime is the presentation time.
    Raises as :func:`segment`; ``segment_not_found`` also where the sample is no sync sample.
    """

def segment_sizes(track: Track, starts: NDArray[np.uint32], *, brands: tuple[str, ...]) -> NDArray[np.uint64]:
    """Bytes of every segment [starts[i], starts[i + 1]), exactly ``segment(...).size``; shape (len(starts) - 1,).

    Raises ``segment_not_found`` where ``starts`` does not ascend strictly or exceeds the track.
    """
