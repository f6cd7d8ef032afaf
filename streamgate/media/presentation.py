"""A presentation: all renditions of an asset on one common segment timeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

import numpy as np

from streamgate.errors import Finding, StreamGateError
from streamgate.media import assembly, timeline
from streamgate.media.inputs import Limits, TextInput, TrackInput
from streamgate.media.renditions import Rendition, TextRendition, microseconds
from streamgate.native.mpegts import Muxer

__all__ = ["Limits", "Presentation", "Rendition", "TextInput", "TextRendition", "TrackInput", "build"]

TS_VIDEO = frozenset(("h264",))
TS_AUDIO = frozenset(("mp4a.40.2", "mp4a.40.5", "mp4a.40.29"))


@dataclass(frozen=True, eq=False)
class Presentation:
    """All renditions, and what they share.

    ``shift``: seconds by which every folded time was moved. ``zero``: where the presentation starts on the shifted
    clock, in seconds: DASH's presentationTimeOffset. ``begin``: where an edit list wants it to be shown from, which is
    behind that where the picture there needs an earlier keyframe. ``duration``: seconds from there to the end of the last rendition.
    ``target_duration``: whole seconds; no segment of video or audio rounds to more.
    """

    video: list[Rendition]
    audio: list[Rendition]
    text: list[TextRendition]
    findings: list[Finding]
    shift: Fraction
    zero: Fraction
    begin: Fraction
    duration: Fraction
    target_duration: int
    independent: bool
    _muxers: dict[tuple[str | None, str | None], Muxer] = field(default_factory=dict, repr=False)

    @cached_property
    def renditions(self) -> dict[str, Rendition | TextRendition]:
        offered: list[Rendition | TextRendition] = [*self.video, *self.audio, *self.text]
        return {r.name: r for r in offered}

    @cached_property
    def ts_variants(self) -> dict[str, tuple[Rendition | None, Rendition | None]]:
        """The variants that MPEG-TS can carry, by the name of their folder: ``{video}+{audio}``, ``none`` for an
        absent half.

        One for each H.264 rung with the default audio, or the default audio alone; none where sound would get lost.
        """
        video = [r for r in self.video if r.codec.family in TS_VIDEO]
        audio = [r for r in self.audio if r.codec.string in TS_AUDIO]
        if (self.video and not video) or (self.audio and not audio):
            return {}
        chosen = next((r for r in audio if r.default), audio[0] if audio else None)
        pairs: list[tuple[Rendition | None, Rendition | None]] = [(v, chosen) for v in video] or [(None, chosen)]
        return {f"{v.name if v else 'none'}+{a.name if a else 'none'}": (v, a) for v, a in pairs}

    def ts_muxer(self, video_name: str | None, audio_name: str | None) -> Muxer:
        """The muxer of a pair of renditions (``none`` or None for an absent half), kept for the next call.

        Raises ``rendition_gone`` for a name that is not of this presentation, ``ts_unavailable`` for a codec that TS
        lacks here.
        """
        key = (video_name if video_name != "none" else None, audio_name if audio_name != "none" else None)
        if key not in self._muxers:
            video = self._ts_half(key[0], "video")
            audio = self._ts_half(key[1], "audio")
            nothing = np.zeros(1, np.uint32)
            self._muxers[key] = Muxer(
                video.track if video else None,
                audio.track if audio else None,
                avcc=video.codec.config if video else b"",
                asc=audio.codec.config if audio else b"",
                video_starts=video.aligned if video else nothing,
                audio_starts=audio.aligned if audio else nothing,
                video_shift=video.shift if video else 0,
                audio_shift=audio.shift if audio else 0,
            )
        return self._muxers[key]

    def _ts_half(self, wanted: str | None, kind: str) -> Rendition | None:
        if wanted is None:
            return None
        found = self.renditions.get(wanted)
        if not isinstance(found, Rendition) or found.kind != kind:
            raise StreamGateError("rendition_gone", f"there is no {kind} rendition {wanted}")
        if found.codec.family not in TS_VIDEO and found.codec.string not in TS_AUDIO:
            raise StreamGateError("ts_unavailable", f"MPEG-TS does not carry {found.codec.string} here")
        return found

    def ts_times(self, video: Rendition | None, audio: Rendition | None) -> list[int]:
        """Start of each TS segment of the pair and end of the last, in microseconds on the shifted clock."""
        if video is None or audio is None:
            only = video or audio
            assert only is not None
            return microseconds(only.times, only.timescale)
        # Behind the end of the video there are segments of audio alone.
        tail = len(audio.aligned) - len(video.aligned)
        times = microseconds(video.times, video.timescale)
        return times + microseconds(audio.times[-tail:], audio.timescale) if tail > 0 else times


DEFAULT_LIMITS = Limits()


def _nothing(findings: Sequence[Finding]) -> StreamGateError:
    """Why nothing can be offered."""
    codes = {finding.code for finding in findings}
    told = "; ".join(f"{finding.subject}: {finding.detail}" for finding in findings)
    return StreamGateError(codes.pop() if len(codes) == 1 else "source_empty", told)


def build(
    inputs: Sequence[TrackInput], texts: Sequence[TextInput] = (), limits: Limits = DEFAULT_LIMITS
) -> Presentation:
    """Cut the inputs on one timeline. Rungs are taken in the order given, so the most important one comes first.

    Raises ``source_malformed``; where nothing can be offered the code that all findings share, else ``source_empty``.
    What merely keeps one track from being offered becomes a finding.
    """
    findings: list[Finding] = []
    members = assembly.offered(inputs, findings)
    if not members:
        raise _nothing(findings)
    clock = assembly.clock_of(members, limits)

    videos = [m for m in members if m.given.codec.kind == "video"]
    cuts, boundaries, end, independent = assembly.cut_video(videos, clock, limits.max_segment, findings)
    cuts += [assembly.cut_audio(m, boundaries, end, clock) for m in members if m.given.codec.kind == "audio"]
    if not cuts:
        raise _nothing(findings)

    # EXTINF, rounded to whole seconds, may not exceed the target duration (RFC 8216 section 4.3.3.1).
    longest = max(int(np.diff(microseconds(c.times, c.member.folded.timescale)).max()) for c in cuts)
    target_duration = max(1, (longest + 500_000) // 1_000_000)
    tracks: dict[str, Rendition] = {}
    for cut in cuts:
        rendition = assembly.rendition(cut, clock, target_duration, independent, tracks)
        tracks[rendition.name] = rendition
    pictures = [(c.member.folded, c.member.given.track) for c in cuts if c.member.given.codec.kind == "video"]
    zero = timeline.zero_of(Fraction(clock.origin, clock.unit), pictures) + clock.shift
    subtitles: dict[str, TextRendition] = {}
    grid = assembly.text_grid(cuts, clock)
    for given in texts:
        text = assembly.text_rendition(given, grid, clock, zero, target_duration, subtitles)
        subtitles[text.name] = text
    finish = max(Fraction(c.member.folded.end, c.member.folded.timescale) for c in cuts)
    return Presentation(
        video=[r for r in tracks.values() if r.kind == "video"],
        audio=[r for r in tracks.values() if r.kind == "audio"],
        text=list(subtitles.values()),
        findings=findings,
        shift=clock.shift,
        zero=zero,
        begin=clock.begin,
        # What is offered may all lie in front of an edit.
        duration=max(finish + clock.shift - zero, Fraction(1, clock.unit)),
        target_duration=target_duration,
        independent=independent,
    )
