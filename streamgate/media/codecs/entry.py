"""Sample entries: the boxes of ``stsd`` (ISO/IEC 14496-12 sections 8.5.2, 12.1.3, 12.2.3; QuickTime File Format).

An entry is taken apart into its fixed part and its child boxes, and built anew for the init segment: only what CMAF
(ISO/IEC 23000-19 section 9.2) knows is kept, QuickTime's own fields become the zeros that ISO wants there, and
version 1 and 2 sound descriptions become plain version 0 entries.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from streamgate.errors import StreamGateError

from .bits import malformed
from .colour import Colour

# Box headers and the fixed parts behind them, in bytes.
_HEADER = 8
_VISUAL = 78
_AUDIO = 28
_QUICKTIME_SOUND = {1: 16, 2: 36}

# The children of a video entry that mean something to a player, beside the configuration box.
_VIDEO_CHILDREN = frozenset({"colr", "pasp", "clap", "mdcv", "clli", "amve", "cclv", "SmDm", "CoLL", "btrt"})
_AUDIO_CHILDREN = frozenset({"btrt"})


@dataclass(frozen=True, slots=True)
class Box:
    """A box's type and what is behind its header."""

    kind: str
    payload: bytes

    def __bytes__(self) -> bytes:
        return struct.pack(">I", _HEADER + len(self.payload)) + self.kind.encode("latin-1") + self.payload


def boxes(data: bytes) -> Iterator[Box]:
    """The boxes that fill ``data``.

    Fewer than 8 trailing bytes, or a size of 0 behind the last box (QuickTime's terminator), end the list.
    """
    at = 0
    while len(data) - at >= _HEADER:
        size, kind = struct.unpack_from(">I4s", data, at)
        if size == 0:
            return
        if size < _HEADER or size > len(data) - at:
            raise malformed(f"a box of {size} bytes does not fit where it stands")
        yield Box(kind.decode("latin-1"), data[at + _HEADER : at + size])
        at += size


def fourcc(entry: bytes) -> str:
    """The type of a sample entry, whose size must be that of ``entry``."""
    if len(entry) < _HEADER + 8 or struct.unpack_from(">I", entry)[0] != len(entry):
        raise malformed("a sample entry has a wrong size")
    return entry[4:8].decode("latin-1")


class _Children:
    """Look-ups among child boxes, shared by both kinds of entry."""

    __slots__ = ()
    children: tuple[Box, ...]

    def find(self, kind: str) -> bytes | None:
        """Payload of the first child of this type."""
        return next((box.payload for box in self.children if box.kind == kind), None)

    def config(self, kind: str, least: int) -> bytes:
        """Payload of the configuration box, at least ``least`` bytes."""
        payload = self.find(kind)
        if payload is None:
            raise malformed(f"the sample entry has no {kind} box")
        if len(payload) < least:
            raise malformed(f"the {kind} box ends too early")
        return payload


def _guard(children: tuple[Box, ...]) -> None:
    # A protected track may keep its old entry type and only add the protection scheme.
    if any(box.kind == "sinf" for box in children):
        raise StreamGateError("source_encrypted", "the sample entry names a protection scheme")


@dataclass(frozen=True, slots=True)
class VisualEntry(_Children):
    """A video sample entry: ``fixed`` is the 78 bytes behind the box header."""

    fixed: bytes
    width: int
    height: int
    children: tuple[Box, ...]

    @classmethod
    def parse(cls, entry: bytes) -> VisualEntry:
        """Take a whole sample entry box apart; raises ``source_malformed`` or ``source_encrypted``."""
        if len(entry) < _HEADER + _VISUAL:
            raise malformed("a video sample entry ends too early")
        fixed = entry[_HEADER : _HEADER + _VISUAL]
        width, height = struct.unpack_from(">HH", fixed, 24)
        if not width or not height:
            raise malformed("a video sample entry has no size")
        children = tuple(boxes(entry[_HEADER + _VISUAL :]))
        _guard(children)
        return cls(fixed, width, height, children)

    @property
    def pasp(self) -> tuple[int, int]:
        """Pixel aspect ratio; (1, 1) when absent or senseless."""
        payload = self.find("pasp")
        if payload is None or len(payload) < 8:
            return (1, 1)
        horizontal, vertical = struct.unpack_from(">II", payload)
        return (horizontal, vertical) if horizontal and vertical else (1, 1)

    @property
    def colour(self) -> Colour | None:
        """The first ``colr`` box that gives code points (``nclx``, QuickTime's ``nclc``)."""
        return next((c for box in self.children if box.kind == "colr" and (c := Colour.from_colr(box.payload))), None)

    def build(self, kind: str, config_kind: str, config: bytes, bitstream: Colour | None = None) -> bytes:
        """The entry for an init segment; QuickTime's ``nclc`` becomes ``nclx`` with the range of the bitstream."""
        kept = [Box(config_kind, config)]
        for box in self.children:
            if box.kind not in _VIDEO_CHILDREN:
                continue
            if box.kind == "pasp":
                box = Box("pasp", struct.pack(">II", *self.pasp))
            if box.kind == "colr" and box.payload[:4] == b"nclc":
                colour = Colour.from_colr(box.payload)
                if colour is None:
                    continue
                full = bitstream.full_range if bitstream else False
                box = Box("colr", b"nclx" + box.payload[4:10] + bytes([0x80 * full]))
            kept.append(box)
        # Data reference 1, the size, 72 dpi, one frame a sample, the compressor's name, the depth; zeros between.
        fixed = struct.pack(">6xH16xHHIIIH", 1, self.width, self.height, 72 << 16, 72 << 16, 0, 1)
        fixed += self.fixed[42:76] + b"\xff\xff"
        return bytes(Box(kind, fixed + b"".join(map(bytes, kept))))


@dataclass(frozen=True, slots=True)
class AudioEntry(_Children):
    """A sound sample entry; what QuickTime wraps into ``wave`` counts as a child."""

    channels: int
    sample_rate: int
    children: tuple[Box, ...]

    @classmethod
    def parse(cls, entry: bytes) -> AudioEntry:
        """Take a whole sample entry box apart; raises ``source_malformed`` or ``source_encrypted``."""
        if len(entry) < _HEADER + _AUDIO:
            raise malformed("a sound sample entry ends too early")
        version, channels, rate = struct.unpack_from(">8xH6xH6xI", entry, _HEADER)
        sample_rate = rate >> 16
        skip = _HEADER + _AUDIO
        # ISO has a version 1 too, without QuickTime's extra fields: there the children follow at once.
        if version in _QUICKTIME_SOUND and not _boxes_at(entry, skip):
            if version == 2:
                channels, sample_rate = _version_2(entry[skip:])
            skip += _QUICKTIME_SOUND[version]
        children = tuple(boxes(entry[skip:]))
        wave = next((box.payload for box in children if box.kind == "wave"), b"")
        children += tuple(boxes(wave))
        _guard(children)
        return cls(channels, sample_rate, children)

    def build(self, kind: str, *config: Box, channels: int, sample_rate: int) -> bytes:
        """The version 0 entry for an init segment; rates beyond 16 bits are 0, as the field cannot hold them."""
        rate = sample_rate << 16 if sample_rate < 65536 else 0
        fixed = struct.pack(">6xH8xHH4xI", 1, channels, 16, rate)
        kept = [*config, *(box for box in self.children if box.kind in _AUDIO_CHILDREN)]
        return bytes(Box(kind, fixed + b"".join(map(bytes, kept))))


def _version_2(fields: bytes) -> tuple[int, int]:
    """Channels and sample rate of QuickTime's version 2 fields."""
    if len(fields) < _QUICKTIME_SOUND[2]:
        raise malformed("a sound sample entry ends too early")
    rate, channels = struct.unpack_from(">dI", fields, 4)
    if not (0 < rate <= 1 << 20 and 0 < channels <= 255):
        raise malformed("a sound sample entry has no sample rate or no channels")
    return channels, round(rate)


def _boxes_at(entry: bytes, at: int) -> bool:
    """Whether ``entry`` is filled by boxes from ``at`` on."""
    try:
        found = list(boxes(entry[at:]))
    except StreamGateError:
        return False
    return sum(_HEADER + len(box.payload) for box in found) == len(entry) - at > 0
