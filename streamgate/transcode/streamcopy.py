"""Copies the tracks of any readable container into a progressive MP4, samples untouched.

Timestamps stay exact within one tick of the source's time base. The whole file is moved by one constant, so that a
transport stream, which may begin at any time, begins at zero.
"""

from __future__ import annotations

import errno
import html
import math
import re
import time
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream

from streamgate.errors import Finding, StreamGateError
from streamgate.transcode.probe import TEXT, name_of, opened, select

Cue = tuple[int, int, str]  # start and end in ticks of the source's time base, text

MAX_TIMESCALE = (1 << 31) - 1
MAX_REORDER = 64  # frames; H.264 and HEVC reorder at most 16
MAX_SAMPLE = 0xFFFF  # a tx3g sample counts its text in 16 bits (3GPP TS 26.245 section 5.17)

# libav's mov_text encoder writes the sample entry, and wants to know its style: the defaults of an ASS script.
ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+
[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0
[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def copy_streams(source: Path, target: Path, *, deadline: float, max_bytes: int) -> tuple[Finding, ...]:
    """Write ``source`` into ``target`` as MP4 with ``moov`` first; returns why tracks were left out.

    ``deadline`` is a ``time.monotonic()`` time, ``max_bytes`` bounds the sum of all packets. Raises ``remux_failed``,
    ``source_empty``, ``source_not_found``, ``source_unreadable``, ``output_failed``.
    """
    with opened(source) as container:
        streams, findings = select(container)
        if not any(stream.type in ("video", "audio") for stream in streams):
            raise StreamGateError("source_empty", f"{source.name}: no track that can be carried")
        options = {"movflags": "+faststart", "movie_timescale": str(_movie_timescale(streams))}
        try:
            with av.open(f"file:{target}", "w", format="mp4", options=options) as out:
                _copy(container, streams, out, deadline, max_bytes)
        except av.FFmpegError as error:
            written = (error.filename or "").endswith(target.name)
            code = "output_failed" if written or error.errno in OUTPUT_ERRNOS else "remux_failed"
            raise StreamGateError(code, f"{source.name}: {error.strerror}") from error
        except ValueError as error:  # PyAV's word for what a muxer cannot carry
            raise StreamGateError("remux_failed", f"{source.name}: {error}") from error
    return tuple(findings)


OUTPUT_ERRNOS = frozenset((errno.EFBIG, errno.ENOSPC, errno.EROFS, errno.EDQUOT))
"""The fault of the disk that is written to."""


def _movie_timescale(streams: Iterable[Stream]) -> int:
    """A movie timescale in which every start is exact, where one fits; libav's 1000 would round the edit lists."""
    scales = [stream.time_base.denominator for stream in streams if stream.time_base]
    scales += [stream.sample_rate for stream in streams if isinstance(stream, AudioStream) and stream.sample_rate]
    common = math.lcm(*scales)
    return common if common <= MAX_TIMESCALE else max(scales)


def _shift(streams: Iterable[Stream]) -> Fraction:
    """How many seconds earlier everything is to be: the earliest start, rounded down to what every clock can say."""
    timed = [s for s in streams if s.start_time is not None and s.time_base and s.type != "subtitle"]
    starts = [s.start_time * s.time_base for s in timed if s.start_time is not None and s.time_base]
    if not starts or min(starts) <= 0:  # times below zero are priming, and belong there
        return Fraction(0)
    grid = math.gcd(*(s.time_base.denominator for s in streams if s.time_base))
    return Fraction(math.floor(min(starts) * grid), grid)


def _copy(
    container: InputContainer, streams: list[Stream], out: OutputContainer, deadline: float, max_bytes: int
) -> None:
    shift = _shift(streams)
    writers = {s.index: (_TextWriter if name_of(s) in TEXT else _Writer)(s, out, shift) for s in streams}
    copied = 0
    for packet in container.demux(streams):
        if packet.size == 0 and packet.dts is None:  # the flush packet at the end of each stream
            continue
        copied += packet.size
        if copied > max_bytes:
            raise StreamGateError("output_failed", f"the tracks take more than the {max_bytes} bytes allowed")
        if time.monotonic() > deadline:
            raise StreamGateError("remux_failed", "the conversion took longer than allowed")
        writers[packet.stream.index].write(packet)
    for writer in writers.values():
        writer.finish()
    if not any(writer.written for writer in writers.values()):
        raise StreamGateError("source_empty", "no track has a sample")


class _Writer:
    """Copies one video or audio stream."""

    def __init__(self, stream: Stream, out: OutputContainer, shift: Fraction) -> None:
        assert stream.time_base is not None
        self.out = out
        self.base = stream.time_base
        self.shift = int(shift / self.base)
        self.written = 0
        self.track = self._add(stream)
        for key, name in (("language", "language"), ("title", "handler_name")):
            if value := stream.metadata.get(key):
                self.track.metadata[name] = value
        self.track.disposition = stream.disposition
        self._clock = _AudioClock(stream) if isinstance(stream, AudioStream) else None
        self._last: int | None = None
        self._held: list[Packet[Stream]] = []

    def _add(self, stream: Stream) -> Stream:
        track = self.out.add_stream_from_template(stream, opaque=True)
        track.time_base = self.base
        return track

    def write(self, packet: Packet[Stream]) -> None:
        """Mux one packet, or hold it until its decoding time can be told."""
        if packet.is_corrupt or (packet.dts is None and packet.pts is None):  # torn, as at the start of a cut stream
            return
        if self._last is None:
            self._held.append(packet)
            if packet.dts is not None or len(self._held) > MAX_REORDER:
                self.finish()
        else:
            self._mux(packet)

    def finish(self) -> None:
        """Mux what is held: Matroska knows no decoding times, and libav can't tell those of the first frames.

        They are counted back from the first that is known, a frame's duration each.
        """
        held, self._held = self._held, []
        if not held:
            return
        known = held[-1].dts
        if known is None:  # never told: the times at which frames are shown, in order
            times = sorted(p.pts for p in held if p.pts is not None)
        else:
            step = held[-1].duration or 1
            times = [known - step * n for n in range(len(held) - 1, -1, -1)]
        for packet, dts in zip(held, times, strict=True):
            packet.dts = dts
            self._mux(packet)

    def _mux(self, packet: Packet[Stream]) -> None:
        # Strictly increasing, and no frame shown before it is decoded: MP4 can say nothing else.
        dts = packet.dts if packet.dts is not None else packet.pts
        assert dts is not None
        if self._last is not None and dts <= self._last:
            dts = self._last + 1
        pts = max(packet.pts if packet.pts is not None else dts, dts)
        self._last = dts
        packet.dts, packet.pts = dts - self.shift, pts - self.shift
        packet.time_base = self.base
        if self._clock is not None:
            self._clock.refine(packet)
        packet.stream = self.track
        self.out.mux_one(packet)
        self.written += 1


class _AudioClock:
    """Gives audio frames times on the grid of their samples where the container's clock was too coarse for it.

    Matroska rounds to milliseconds: frames of 21 and 22 ms. Counting samples removes the jitter; a frame whose own time
    is more than a tick of the source away restarts the count, so nothing moves by more than a tick.
    """

    def __init__(self, stream: AudioStream) -> None:
        self.rate, self.samples = stream.sample_rate or 0, stream.frame_size or 0
        self.next: int | None = None  # in samples

    def refine(self, packet: Packet[Stream]) -> None:
        """Set the packet's times, in ticks of the sample rate."""
        base = packet.time_base
        if not self.rate or packet.dts is None or base == Fraction(1, self.rate):
            return
        exact, tick, told = packet.dts * base * self.rate, base * self.rate, (packet.duration or 0) * base * self.rate
        samples = self.samples if self.samples and abs(self.samples - told) <= tick else round(told)
        if not samples:
            return
        time = self.next if self.next is not None and abs(self.next - exact) <= tick else round(exact)
        packet.time_base = Fraction(1, self.rate)
        packet.dts = packet.pts = time
        packet.duration = samples
        self.next = time + samples


class _TextWriter(_Writer):
    """Gathers the cues of one text stream, and writes them at the end as a ``tx3g`` track."""

    def _add(self, stream: Stream) -> Stream:
        self.cues: list[Cue] = []
        self.codec = name_of(stream)
        track = self.out.add_stream("mov_text")
        track.codec_context.subtitle_header = ASS_HEADER
        track.codec_context.time_base = track.time_base = self.base
        return track

    def write(self, packet: Packet[Stream]) -> None:
        if packet.pts is None or not packet.duration:
            return
        text = plain(bytes(packet).decode("utf-8", "replace"), self.codec)
        start = packet.pts - self.shift
        if text and start + packet.duration > 0:
            self.cues.append((max(start, 0), start + packet.duration, text))
            self.written += 1

    def finish(self) -> None:
        for start, end, text in flatten(self.cues):
            data = text.encode()[:MAX_SAMPLE].decode(errors="ignore").encode()
            packet: Packet[Stream] = Packet(len(data).to_bytes(2, "big") + data)
            packet.pts = packet.dts = start
            packet.duration, packet.time_base, packet.stream = end - start, self.base, self.track
            self.out.mux_one(packet)


def flatten(cues: Iterable[Cue]) -> list[Cue]:
    """Cues that do not overlap, as a ``tx3g`` track demands; several on screen become one with all their lines."""
    ordered = sorted(cues)
    borders = sorted({t for start, end, _ in ordered for t in (start, end)})
    out: list[Cue] = []
    active: list[Cue] = []
    upcoming = iter(ordered)
    following = next(upcoming, None)
    for start, end in zip(borders, borders[1:], strict=False):
        while following is not None and following[0] <= start:
            active.append(following)
            following = next(upcoming, None)
        active = [cue for cue in active if cue[1] > start]
        if active:
            out.append((start, end, "\n".join(cue[2] for cue in active)))
    return out


def plain(text: str, codec: str) -> str:
    """The words of one cue, without the markup of its format."""
    if codec in ("ass", "ssa"):  # ReadOrder, Layer, Style, Name, three margins, Effect, Text
        text = text.split(",", 8)[-1]
        text = re.sub(r"\{[^}]*\}", "", text).replace(r"\N", "\n").replace(r"\n", "\n").replace(r"\h", "\u00a0")
    else:
        text = re.sub(r"</?[a-zA-Z][^<>]*>", "", text)
        if codec == "webvtt":
            text = html.unescape(text)
    return text.replace("\r\n", "\n").strip()
