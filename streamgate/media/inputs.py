"""What a presentation is made of."""

from __future__ import annotations

from dataclasses import dataclass

from streamgate.media.codecs import Codec
from streamgate.media.subtitles import Cue
from streamgate.native.samples import Track


@dataclass(frozen=True, slots=True)
class Limits:
    """Settings of the timeline, in seconds."""

    target: float = 4.0  # segments are about so long
    max_segment: float = 12.0  # keyframes may not be further apart
    trick_interval: float = 1.0  # keyframes for trick play are not closer


@dataclass(frozen=True, slots=True)
class TrackInput:
    """A track of one of the asset's sources, and what the asset's description says of it.

    ``identity`` covers the source's bytes; ``movie_timescale`` is that of the source's edit lists;
    ``language`` is a BCP 47 tag or an ISO 639-2 code.
    """

    source: int
    identity: bytes
    track: Track
    codec: Codec
    language: str
    label: str
    default: bool
    movie_timescale: int
    forced: bool = False
    file: str = ""  # how findings call the source


@dataclass(frozen=True, slots=True)
class TextInput:
    """Subtitles; ``identity`` covers their bytes.

    ``from_start``: the times of a file beside the media count from where the presentation starts (which is hours after
    time 0 in what was recorded live); those of a track inside it are times of the movie.
    """

    identity: bytes
    cues: tuple[Cue, ...]
    language: str
    label: str
    default: bool
    forced: bool
    from_start: bool = False
