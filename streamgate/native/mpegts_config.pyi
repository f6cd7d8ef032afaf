"""Interface of native/mpegts_config.pyx: what a transport stream takes out of avcC and AudioSpecificConfig."""

from typing_extensions import Buffer

def parameter_sets(avcc: Buffer) -> bytes:
    """The parameter sets of an AVCDecoderConfigurationRecord (ISO/IEC 14496-15 section 5.3.3.1.2), for a byte stream.

    SPS, SPS extensions, then PPS, each behind its length in 4 bytes. Entries that are no such NAL units are left out.

    Raises ``source_malformed`` where the record is broken, ``ts_unavailable`` where samples have NAL unit lengths of
    other than 4 bytes, for more than 64 sets, and where those of one kind take more than 64 KiB.
    """

def adts_config(asc: Buffer) -> tuple[int, int, int, int]:
    """ADTS profile, sampling frequency index and channel configuration, and the rate in Hz, of the core AAC.

    Of an AudioSpecificConfig (ISO/IEC 14496-3 section 1.6.2.1); with SBR or PS signalled in it, of what lies below.

    Raises ``source_malformed`` where it ends early, ``ts_unavailable`` where ADTS has no header for it.
    """
