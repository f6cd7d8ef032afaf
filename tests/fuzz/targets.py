"""What is fuzzed: each takes any bytes, and either gives a value or raises StreamGateError; anything else is a finding."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable

from edge import paths, ranges
from edge.patterns import Patterns
from streamgate.access import conditional_answers, conditions
from streamgate.access.geography import Place, Point
from streamgate.core.settings import ConditionSettings
from streamgate.errors import StreamGateError
from streamgate.media import cmcd, codecs, dash, hls, presentation, subtitles
from streamgate.media.codecs import sbr, sbr_payload
from streamgate.media.inputs import TrackInput
from streamgate.native import cat, http1, mpegts_config
from streamgate.native.index import FORMAT_VERSION, Index
from streamgate.native.isobmff import read_index
from streamgate.storage import description
from tests import token_factory

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
    Index.loads(struct.pack("<4sII", b"SGIX", FORMAT_VERSION, zlib.crc32(data)) + data)


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


def aac_frame(data: bytes) -> None:
    """An AAC frame that may hide SBR and parametric stereo, and SBR data alone."""
    assert sbr.ends_with_ps(data, 24000) <= sbr.ends_with_sbr(data)
    sbr_payload.has_parametric_stereo(data, 4, 24000)


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


def request_head(data: bytes) -> None:
    """A request's head, whole and byte by byte, and its fields as values: a verdict stays what it is."""
    whole = http1.parse_head(data)
    for end in range(min(len(data), 300)):
        verdict = http1.parse_head(data[:end])
        assert verdict[0] == "incomplete" or verdict == whole, end
    if b"\xff" not in data:
        first, _, rest = data.partition(b"\n")
        http1.names_tag(first, rest[:40])
        found, start, end = http1.select_range(first, len(rest))
        assert found != "part" or 0 <= start < end <= len(rest)


def client_data(data: bytes) -> None:
    """What a player reports of itself (CMCD): a query, and the same bytes as fields and as a text; nothing raises."""
    text = data.decode("latin-1")
    first, _, rest = text.partition("\n")
    for report in (cmcd.of_request(f"CMCD={first}", {"CMCD-Object": rest}), cmcd.parse([text, f"v=2,{rest}"])):
        assert len(json.dumps(report.keys)) < 64 * len(data) + 4096
        assert all("-" in key or key in cmcd.KEYS for key in report.keys)


class _World:
    """What is known of addresses is the same for all."""

    search = Patterns(ConditionSettings(text_length=200)).matches

    def number(self, address: bytes) -> int | None:
        return address[0] if address else None

    def place(self, address: bytes) -> Place:
        return Place("DE", frozenset({"BE"}), Point(52.5, 13.4, 5000.0)) if address else Place()


def _conditions(claims: dict[object, object], path: str, host: str, address: bytes) -> str:
    asked = conditions.Request("GET", "https", host, path, address, token_factory.NOW, {"user-agent": path}.get)
    issuer = conditions.Issuer(token_factory.KEY.issuer, token_factory.KEY.audience)
    found = conditions.judge(claims, asked, _World(), issuer, bootstrap=True)
    answer = conditional_answers.wanted(claims.get(322), found.claim, ("example.com",))
    assert answer is None or answer.status in conditional_answers.STATUSES
    assert answer is None or not "".join(answer.headers.values()).strip("".join(map(chr, range(33, 127))))
    return "token_unsupported" if found.once else found.code


def token(data: bytes) -> None:
    """A token: its characters, its bytes, and with a right MAC its claims, which are then asked about a request."""
    judge = token_factory.verifier()
    # Beyond a token's length there is nothing to find.
    for made in (data[:1100], token_factory.text(data[:768]), token_factory.payload(data[:700])):
        try:
            read = judge.read(made)
        except StreamGateError:
            continue
        address = data[-16:] if len(data) > 15 else data[-4:] if len(data) > 3 else b""
        path, host = f"/v/{data[:20].hex()}/main.mpd", data[20:40].hex()
        answer = ""
        try:
            judge.check(read, path=path, host=host, address=address, now=token_factory.NOW)
        except StreamGateError as error:
            answer = error.code
        slowly = _conditions(read.payload_claims(), path, host, address)
        # The slow way finds what the kernel does, and what that leaves open.
        assert slowly == answer or answer == "token_unsupported" or (answer, slowly) == ("token_network", "token_path")
    try:
        cat.decode(token_factory.payload(data[:700]))
    except StreamGateError:
        pass


TARGETS: dict[str, Callable[[bytes], None]] = {
    f.__name__: f
    for f in (
        isobmff,
        stored_index,
        whole_way,
        sample_entry,
        aac_frame,
        ts_config,
        webvtt,
        srt,
        tx3g,
        asset_toml,
        request_target,
        request_head,
        client_data,
        token,
    )
}
