"""What is fuzzed: each takes any bytes, and either gives a value or raises StreamGateError; anything else is a finding."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from edge import paths, ranges
from streamgate.errors import StreamGateError
from streamgate.media import codecs, dash, hls, presentation, subtitles
from streamgate.media.inputs import TrackInput
from streamgate.native import mpegts_config
from streamgate.native.index import FORMAT_VERSION, MAGIC, Index
from streamgate.native.isobmff import read_index
from streamgate.storage import description

_HANDLERS = ("vide", "soun", "text", "sbtl")


def isobmff(data: bytes) -> None:
    """An MP4, and every table of what is read of it."""
    index = read_index(lambda offset, length: data[offset : offset + length], len(data), max_samples=1_000_000)
    for track in index.tracks:
        track.dts()
        track.composition_offsets()
        if track.samples:
            track.ranges(0, track.samples)
    assert Index.loads(index.dumps()).dumps() == index.dumps()


def stored_index(data: bytes) -> None:
    """A stored index whose checksum is right."""
    Index.loads(struct.pack("<4sII", MAGIC, FORMAT_VERSION, zlib.crc32(data)) + data)


def whole_way(data: bytes) -> None:
    """An MP4 up to its manifests and segments."""
    index = read_index(lambda offset, length: data[offset : offset + length], len(data), max_samples=100_000)
    inputs = []
    for track in index.tracks:
        if track.samples and track.entries_used:
            codec = codecs.describe(track.entries[track.entries_used[0]], handler=track.handler)
            inputs.append(TrackInput(0, b"", track, codec, track.language, track.name, False, index.timescale))
    made = presentation.build(inputs)
    hls.multivariant(made)
    dash.mpd(made)
    for rendition in (*made.video, *made.audio):
        rendition.init()
        for n in range(min(rendition.segments, 5)):
            rendition.segment(n).from_buffer(data, 0)


def sample_entry(data: bytes) -> None:
    """A sample entry for each handler, with the rest as its first sample."""
    size = int.from_bytes(data[:4], "big")
    for handler in _HANDLERS:
        try:
            codecs.describe(data[:size], handler=handler, first_sample=data[size:])
        except StreamGateError:
            continue


def ts_config(data: bytes) -> None:
    """The configuration records that MPEG-TS needs."""
    for parse in (mpegts_config.parameter_sets, mpegts_config.adts_config):
        try:
            parse(data)
        except StreamGateError:
            continue


def webvtt(data: bytes) -> None:
    """A WebVTT file; what is written of it is read again."""
    again = subtitles.parse_vtt(subtitles.write_whole(subtitles.parse_vtt(data)))
    assert again is not None


def srt(data: bytes) -> None:
    """An SRT file."""
    subtitles.write_whole(subtitles.parse_srt(data))


def tx3g(data: bytes) -> None:
    """Samples of a mov_text track."""
    subtitles.write_whole(subtitles.parse_tx3g([(0, 1000, data[:200]), (1000, 2000, data[200:])]))


def asset_toml(data: bytes) -> None:
    """An asset.toml."""
    description.parse(data)


def request_target(data: bytes) -> None:
    """A request's target and its Range field."""
    text = data.decode("latin-1")
    try:
        paths.canonical_path(text)
    except StreamGateError:
        pass
    try:
        ranges.select(text, 1000)
    except ranges.Unsatisfiable:
        pass


TARGETS: dict[str, Callable[[bytes], None]] = {
    f.__name__: f
    for f in (isobmff, stored_index, whole_way, sample_entry, ts_config, webvtt, srt, tx3g, asset_toml, request_target)
}
