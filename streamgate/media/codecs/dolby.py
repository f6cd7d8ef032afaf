"""AC-3 and E-AC-3 in ``ac-3`` and ``ec-3`` entries (ETSI TS 102 366 annex F)."""

from __future__ import annotations

from .bits import Bits, malformed
from .codec import Codec
from .entry import AudioEntry, Box

_RATES = (48000, 44100, 32000)
_CHANNELS = (2, 1, 2, 3, 3, 4, 4, 5)  # of each acmod
# Channels that each bit of chan_loc adds (table F.6.1): bits 0, 1, 4, 5 and 6 are pairs.
_LOCATIONS = (2, 2, 1, 1, 2, 2, 2, 1, 1)


def describe_ac3(entry: AudioEntry) -> Codec:
    """The :class:`Codec` of an ``ac-3`` entry, by its ``dac3`` box (annex F.4); raises ``source_malformed``."""
    config = entry.config("dac3", 3)
    bits = Bits(config)
    rate = _rate(bits.read(2))
    bits.skip(8)
    channels = _CHANNELS[bits.read(3)] + bits.read(1)
    return _codec(entry, "ac3", "ac-3", Box("dac3", config), rate, channels)


def describe_eac3(entry: AudioEntry) -> Codec:
    """The :class:`Codec` of an ``ec-3`` entry, by its ``dec3`` box (annex F.6); raises ``source_malformed``.

    Channels are those of the first independent substream and of the substreams that depend on it.
    """
    config = entry.config("dec3", 5)
    bits = Bits(config)
    bits.skip(16)
    rate = _rate(bits.read(2))
    bits.skip(10)
    channels = _CHANNELS[bits.read(3)] + bits.read(1)
    bits.skip(3)
    if bits.read(4):
        location = bits.read(9)
        channels += sum(count for bit, count in enumerate(_LOCATIONS) if location >> bit & 1)
    return _codec(entry, "eac3", "ec-3", Box("dec3", config), rate, channels)


def _rate(code: int) -> int:
    if code == 3:
        raise malformed("a Dolby configuration box has a reserved sample rate")
    return _RATES[code]


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
