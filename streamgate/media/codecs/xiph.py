"""Opus and FLAC in ``Opus`` and ``fLaC`` entries (Encapsulations of Opus, 0.8.1, and of FLAC in ISO BMFF)."""

from __future__ import annotations

from .bits import Bits, malformed
from .codec import Codec
from .entry import AudioEntry, Box

_OPUS_RATE = 48000  # Opus always decodes to this rate


def describe_opus(entry: AudioEntry) -> Codec:
    """The :class:`Codec` of an ``Opus`` entry, by its ``dOps`` box (section 4.3.2); raises ``source_malformed``."""
    config = entry.config("dOps", 11)
    channels = config[1]
    if config[0] != 0 or not channels:
        raise malformed("the dOps box has an unknown version or no channels")
    return _codec(entry, "opus", "Opus", Box("dOps", config), _OPUS_RATE, channels)


def describe_flac(entry: AudioEntry) -> Codec:
    """The :class:`Codec` of an ``fLaC`` entry, by STREAMINFO in its ``dfLa`` box; raises ``source_malformed``."""
    config = entry.config("dfLa", 4 + 4 + 34)
    bits = Bits(config)
    # FullBox; METADATA_BLOCK_HEADER; block and frame sizes (RFC 9639 section 8.2)
    if bits.read(32) or bits.read(8) & 127 or bits.read(24) < 34:
        raise malformed("the dfLa box does not begin with STREAMINFO")
    bits.skip(80)
    rate, channels = bits.read(20), bits.read(3) + 1
    if not rate:
        raise malformed("STREAMINFO has a sample rate of 0")
    return _codec(entry, "flac", "fLaC", Box("dfLa", config), rate, channels)


def _codec(entry: AudioEntry, family: str, string: str, config: Box, rate: int, channels: int) -> Codec:
    return Codec(
        kind="audio",
        family=family,
        string=string,
        entry=entry.build(string, config, channels=channels, sample_rate=rate),
        config=config.payload,
        sample_rate=rate,
        channels=channels,
    )
