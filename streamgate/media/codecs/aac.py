"""AAC and MP3 in ``mp4a`` entries (ISO/IEC 14496-14 section 5.6; strings: RFC 6381 section 3.3).

MP3: the object types 0x6B (MPEG-1) and 0x69 (MPEG-2) are written ``mp4a.6B`` and ``mp4a.69``. Object type 34 inside
MPEG-4 (``mp4a.40.34``) says the same and is what Apple writes, but fewer players know it; such entries, and
QuickTime's ``.mp3``, get a plain ``mp4a`` entry with 0x6B or 0x69. Chromium's Media Source Extensions take MP3 only
outside MP4, so an MP3 track in MP4 counts as unplayable: beside it not even the picture would play.
"""

from __future__ import annotations

from dataclasses import replace

from streamgate.errors import Finding, StreamGateError

from . import asc
from .bits import malformed
from .codec import Codec, unplayable
from .entry import AudioEntry
from .esds import Descriptor

_MPEG4 = 0x40
_MPEG2_AAC = {0x66: "Main", 0x67: "LC", 0x68: "SSR"}
_MP3 = (0x69, 0x6B)
_LAYER_3 = 34
# AAC: 6144 bits a channel and frame at most (ISO/IEC 14496-3 section 4.5.3.1), eight channels.
_AAC_FRAME = 6144
_MP3_HEADER = 4
# Core object types that every browser decodes, or that the platform's decoder does where there is one (xHE-AAC).
_PLAYABLE = {asc.LC, asc.USAC}
# Chromium turns AAC into ADTS, whose header has three bits for the channels; others end the whole playback.
_LAYOUTS = range(1, 8)


def wants_first_sample(kind: str, entry: AudioEntry) -> int:
    """MP3's own header tells rate and channels; AAC-LC may hide SBR and PS in its frames."""
    if kind != "mp4a":
        return _MP3_HEADER
    descriptor = Descriptor.parse(entry.config("esds", 4))
    if descriptor.object_type in _MP3:
        return _MP3_HEADER
    if not _is_aac(descriptor):
        return 0
    config = asc.parse(descriptor.specific)
    if config.object_type == _LAYER_3:
        return _MP3_HEADER
    return _AAC_FRAME if asc.may_be_implicit(config) else 0


def describe(kind: str, entry: AudioEntry, first_sample: bytes, timescale: int, delta: int) -> Codec:
    """The :class:`Codec` of an ``mp4a`` or MP3 entry; raises ``source_malformed`` or ``codec_unsupported``."""
    if kind != "mp4a":
        return _mp3(entry, Descriptor(0, b"", 0, 0, 0), first_sample)
    descriptor = Descriptor.parse(entry.config("esds", 4))
    if descriptor.object_type in _MP3:
        return _mp3(entry, descriptor, first_sample)
    if not _is_aac(descriptor):
        raise StreamGateError("codec_unsupported", f"mp4a with object type 0x{descriptor.object_type:02X}")
    config = asc.parse(descriptor.specific)
    if config.object_type == _LAYER_3:
        return _mp3(entry, descriptor, first_sample)
    config = asc.with_implicit(config, first_sample, timescale, delta)
    string = f"mp4a.{descriptor.object_type:02X}"
    if descriptor.object_type == _MPEG4:
        string += f".{config.string_type}"
    channels = config.output_channels or entry.channels
    problem = _problem(descriptor.object_type, config, string)
    return Codec(
        kind="audio",
        family="aac",
        string=string,
        entry=entry.build("mp4a", descriptor.box(), channels=channels, sample_rate=config.output_rate),
        config=descriptor.specific,
        sample_rate=config.output_rate,
        channels=channels,
        playable=problem is None,
        problem=problem,
    )


def _is_aac(descriptor: Descriptor) -> bool:
    if descriptor.object_type != _MPEG4 and descriptor.object_type not in _MPEG2_AAC:
        return False
    if not descriptor.specific:
        raise malformed("an mp4a entry has no AudioSpecificConfig")
    return True


def _problem(object_type: int, config: asc.Config, string: str) -> Finding | None:
    if object_type in _MPEG2_AAC and _MPEG2_AAC[object_type] != "LC":
        return unplayable(string, f"MPEG-2 AAC {_MPEG2_AAC[object_type]} is decoded by no browser")
    if config.object_type not in _PLAYABLE:
        return unplayable(string, f"MPEG-4 audio object type {config.object_type} is not decoded by every browser")
    if config.object_type == asc.LC and config.layout not in _LAYOUTS:
        return unplayable(string, f"AAC with channelConfiguration {config.layout} is not decoded by every browser")
    return None


# Sample rates of MPEG-1 Layer III (ISO/IEC 11172-3 section 2.4.2.3); MPEG-2 halves, MPEG-2.5 quarters them.
_MP3_RATES = (44100, 48000, 32000)
_MONO = 3


def _mp3(entry: AudioEntry, descriptor: Descriptor, first_sample: bytes) -> Codec:
    sample_rate, channels = entry.sample_rate, entry.channels
    object_type = descriptor.object_type if descriptor.object_type in _MP3 else 0x6B
    word = int.from_bytes(first_sample[:_MP3_HEADER])
    if len(first_sample) >= _MP3_HEADER and word >> 21 == 0x7FF and word >> 17 & 3 == 1 and word >> 10 & 3 != 3:
        version = word >> 19 & 3
        sample_rate = _MP3_RATES[word >> 10 & 3] >> {3: 0, 2: 1}.get(version, 2)
        channels = 1 if word >> 6 & 3 == _MONO else 2
        object_type = 0x6B if version == 3 else 0x69
    string = f"mp4a.{object_type:02X}"
    return Codec(
        kind="audio",
        family="mp3",
        string=string,
        entry=entry.build(
            "mp4a",
            replace(descriptor, object_type=object_type, specific=b"").box(),
            channels=channels,
            sample_rate=sample_rate,
        ),
        sample_rate=sample_rate,
        channels=channels,
        # Offered for players that are no browser; the finding is a caveat.
        problem=unplayable(string, "browsers do not take MP3 in MP4 segments"),
    )
