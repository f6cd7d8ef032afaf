"""AudioSpecificConfig (ISO/IEC 14496-3 section 1.6.2.1), and the signs of SBR that it may leave out (section 1.6.5)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .bits import Bits, malformed

LC, SBR, PS, USAC, ELD = 2, 5, 29, 42, 39
_BSAC = 22
_GA = {1, 2, 3, 4, 6, 7, 17, 19, 20, 21, 22, 23}
_ERROR_RESILIENT = range(17, 28)
_SYNC_SBR, _SYNC_PS = 0x2B7, 0x548

RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
# Channels of each channelConfiguration (table 1.19); 0: a program config element tells.
_CHANNELS = (0, 1, 2, 3, 4, 5, 6, 8, 0, 0, 0, 7, 8, 24, 8)
# Unsignalled SBR is looked for only up to this core rate (section 1.6.5.3).
_IMPLICIT_LIMIT = 24000


@dataclass(frozen=True, slots=True)
class Config:
    """What an AudioSpecificConfig says.

    ``object_type`` is the core's; ``sbr`` and ``ps`` are None where nothing was signalled.
    ``sample_rate`` is the core's, ``output_rate`` what comes out behind SBR.
    ``layout`` is the channelConfiguration; 0: a program config element has the channels.
    """

    object_type: int
    sample_rate: int
    channels: int
    layout: int
    frame_length: int = 1024
    sbr: bool | None = None
    ps: bool | None = None
    output_rate: int = 0

    @property
    def string_type(self) -> int:
        """The object type for the codecs parameter: 29 with PS, 5 with SBR, else the core's."""
        return PS if self.ps else SBR if self.sbr else self.object_type

    @property
    def output_channels(self) -> int:
        """Channels that come out of the decoder: PS makes two of one."""
        return 2 if self.ps and self.channels == 1 else self.channels


def parse(data: bytes) -> Config:
    """Read an AudioSpecificConfig; raises ``source_malformed``."""
    bits = Bits(data)
    object_type = _object_type(bits)
    rate = output_rate = _rate(bits)
    channel_config = bits.read(4)
    sbr: bool | None = None
    ps: bool | None = None
    if object_type in (SBR, PS):
        ps = True if object_type == PS else None
        sbr = True
        output_rate = _rate(bits)
        object_type = _object_type(bits)
        if object_type == _BSAC:
            bits.skip(4)
    channels = _CHANNELS[channel_config] if channel_config < len(_CHANNELS) else 0
    frame_length = 1024
    if object_type in _GA:
        frame_length = 960 if bits.flag() else 1024
        if bits.flag():  # dependsOnCoreCoder
            bits.skip(14)
        extension = bits.flag()
        if channel_config == 0:
            channels = _program_config(bits)
        _skip_extension(bits, object_type, extension)
    config = Config(object_type, rate, channels, channel_config, frame_length, sbr, ps, output_rate)
    if object_type in _ERROR_RESILIENT:
        bits.skip(min(2, bits.left))
    return _backward_compatible(bits, config) if object_type in _GA and not sbr else config


def _skip_extension(bits: Bits, object_type: int, extension: bool) -> None:
    if object_type in (6, 20):
        bits.skip(3)
    if extension:
        if object_type == _BSAC:
            bits.skip(16)
        elif object_type in (17, 19, 20, 23):
            bits.skip(3)
        bits.skip(1)


def _backward_compatible(bits: Bits, config: Config) -> Config:
    """The sync extensions behind the core's configuration, which old decoders overlook."""
    if bits.left < 16 or bits.read(11) != _SYNC_SBR or _object_type(bits) != SBR:
        return config
    if not bits.flag():
        return replace(config, sbr=False)
    config = replace(config, sbr=True, output_rate=_rate(bits))
    if bits.left < 12 or bits.read(11) != _SYNC_PS:
        return config
    return replace(config, ps=bits.flag())


def _object_type(bits: Bits) -> int:
    value = bits.read(5)
    return 32 + bits.read(6) if value == 31 else value


def _rate(bits: Bits) -> int:
    index = bits.read(4)
    if index == 15:
        rate = bits.read(24)
        if not rate:
            raise malformed("the AudioSpecificConfig has a sample rate of 0")
        return rate
    if index >= len(RATES):
        raise malformed("the AudioSpecificConfig has a reserved sample rate")
    return RATES[index]


def _program_config(bits: Bits) -> int:
    """Channels of a program_config_element (section 4.4.1.1)."""
    bits.skip(10)
    front, side, back = bits.read(4), bits.read(4), bits.read(4)
    effects, data, coupling = bits.read(2), bits.read(3), bits.read(4)
    for width in (4, 4, 3):  # mono and stereo mixdown, matrix mixdown
        if bits.flag():
            bits.skip(width)
    channels = effects
    for _ in range(front + side + back):
        channels += 1 + bits.flag()
        bits.skip(4)
    bits.skip(4 * effects + 4 * data + 5 * coupling)
    bits.skip(min(-bits.position % 8, bits.left))
    if bits.left >= 8:
        bits.skip(min(8 * bits.read(8), bits.left))
    return channels


def with_implicit(config: Config, frame: bytes, timescale: int, delta: int) -> Config:
    """The configuration with SBR and PS found where they were not signalled (implicit signalling, section 1.6.5.3).

    SBR has two signs: a track that counts in twice the core's rate with twice the frame's length (``timescale``, ``delta`` in
    ticks), and an SBR payload at the end of the first frame. PS is an extension of a mono core's SBR payload.
    """
    if not may_be_implicit(config):
        return config
    from .sbr import ends_with_ps, ends_with_sbr  # here, as hardly any track is looked at so closely

    if may_hide_sbr(config):
        doubled = (timescale, delta) == (2 * config.sample_rate, 2 * config.frame_length)
        if doubled or ends_with_sbr(frame):
            config = replace(config, sbr=True, output_rate=2 * config.sample_rate)
    if config.sbr and may_hide_ps(config) and ends_with_ps(frame, config.sample_rate):
        config = replace(config, ps=True)
    return config


def may_be_implicit(config: Config) -> bool:
    """Whether the frames have to be looked at."""
    return may_hide_sbr(config) or (config.sbr is True and may_hide_ps(config))


def may_hide_sbr(config: Config) -> bool:
    """Whether nothing was said of SBR."""
    return config.object_type == LC and config.sbr is None and config.sample_rate <= _IMPLICIT_LIMIT


def may_hide_ps(config: Config) -> bool:
    """Whether nothing was said of PS, which only a mono core of full frames can have."""
    mono = (config.channels, config.layout, config.frame_length) == (1, 1, 1024)
    return config.object_type == LC and config.ps is None and mono
