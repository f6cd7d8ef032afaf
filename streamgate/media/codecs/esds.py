"""Elementary stream descriptors, the contents of ``esds`` (ISO/IEC 14496-1 section 7.2.6, 14496-14 section 5.6)."""

from __future__ import annotations

from dataclasses import dataclass

from .bits import malformed
from .entry import Box

_ES, _DECODER_CONFIG, _DECODER_SPECIFIC, _SL_CONFIG = 3, 4, 5, 6
_AUDIO_STREAM = 0x15  # streamType 5, upStream 0, the reserved bit 1


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What matters of an ES_Descriptor: object type, and the DecoderSpecificInfo (empty when absent)."""

    object_type: int
    specific: bytes
    buffer_size: int
    max_bitrate: int
    average_bitrate: int

    @classmethod
    def parse(cls, payload: bytes) -> Descriptor:
        """From the payload of an ``esds`` box; raises ``source_malformed``."""
        body = _find(payload[4:], _ES)
        if len(body) < 3:
            raise malformed("the ES descriptor ends too early")
        flags = body[2]
        at = 5 if flags & 0x80 else 3
        if flags & 0x40:
            at += 1 + (body[at] if at < len(body) else 0)
        if flags & 0x20:
            at += 2
        config = _find(body[at:], _DECODER_CONFIG)
        if len(config) < 13:
            raise malformed("the decoder configuration descriptor ends too early")
        rest = config[13:]
        specific = _find(rest, _DECODER_SPECIFIC) if rest else b""
        numbers = (int.from_bytes(config[a:b]) for a, b in ((2, 5), (5, 9), (9, 13)))
        return cls(config[0], specific, *numbers)

    def box(self) -> Box:
        """A plain ``esds`` box that says this and nothing else."""
        config = bytes([self.object_type, _AUDIO_STREAM]) + self.buffer_size.to_bytes(3)
        config += self.max_bitrate.to_bytes(4) + self.average_bitrate.to_bytes(4)
        if self.specific:
            config += _descriptor(_DECODER_SPECIFIC, self.specific)
        body = b"\0\0\0" + _descriptor(_DECODER_CONFIG, config) + _descriptor(_SL_CONFIG, b"\2")
        return Box("esds", b"\0\0\0\0" + _descriptor(_ES, body))


def _descriptor(tag: int, body: bytes) -> bytes:
    size = len(body)
    # The expandable size (ISO/IEC 14496-1 section 8.3.3), always in four bytes.
    return bytes([tag, *(0x80 | size >> shift & 127 for shift in (21, 14, 7)), size & 127]) + body


def _find(data: bytes, wanted: int) -> bytes:
    """Body of the first descriptor with this tag."""
    at = 0
    while at < len(data):
        tag = data[at]
        at += 1
        size = 0
        for _ in range(4):
            if at >= len(data):
                raise malformed("a descriptor ends too early")
            size = size << 7 | data[at] & 127
            at += 1
            if data[at - 1] < 128:
                break
        if at + size > len(data):
            raise malformed("a descriptor does not fit where it stands")
        if tag == wanted:
            return data[at : at + size]
        at += size
    if wanted == _DECODER_SPECIFIC:
        return b""
    raise malformed(f"the esds box has no descriptor with tag {wanted}")
