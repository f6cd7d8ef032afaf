"""What is known of one elementary stream: the :class:`Codec`."""

from __future__ import annotations

from dataclasses import dataclass

from streamgate.errors import Finding


@dataclass(frozen=True, slots=True)
class Codec:
    """One elementary stream as manifests and init segments need it.

    ``entry`` is the sample entry box for the init segment: the source's, cleaned (see :mod:`.entry`).
    ``config`` is the payload of the codec's configuration box (``avcC``, ``hvcC``, ``av1C``, ``vpcC``, ``dOps``,
    ``dfLa``, ``dac3``, ``dec3``), for AAC the AudioSpecificConfig, for text and MP3 empty.
    """

    kind: str  # 'video' | 'audio' | 'text'
    family: str  # 'h264', 'hevc', 'av1', 'vp9', 'aac', 'opus', 'flac', 'ac3', 'eac3', 'mp3', 'tx3g', 'wvtt', 'stpp'
    string: str  # RFC 6381
    entry: bytes
    config: bytes = b""
    width: int = 0  # coded, in pixels; 0 unless video
    height: int = 0
    pasp: tuple[int, int] = (1, 1)  # the shape of a pixel: horizontal, vertical spacing
    video_range: str = "SDR"  # 'SDR' | 'PQ' | 'HLG', as in RFC 8216bis section 4.4.6.2
    sample_rate: int = 0  # Hz after decoding, SBR included; 0 unless audio
    channels: int = 0
    playable: bool = True
    problem: Finding | None = None


def unplayable(string: str, reason: str) -> Finding:
    """The finding that says that browsers do not play this stream, and why."""
    return Finding("profile_unplayable", string, reason)
