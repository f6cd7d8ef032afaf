"""The steps of making a presentation: what can be offered, where it is cut, and the renditions that come of it."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import lcm

import numpy as np
from numpy.typing import NDArray

from streamgate.errors import Finding, StreamGateError
from streamgate.media import timeline
from streamgate.media.inputs import Limits, TextInput, TrackInput
from streamgate.media.naming import name
from streamgate.media.renditions import Rendition, TextRendition
from streamgate.media.timeline import Folded, Ints
from streamgate.native import cmaf

# What lies below a rendition is immutable, so its name covers how each of these is written, too:
# raise the number of what changes its bytes (tests/unit/test_presentation_golden.py notices).
TS_FORMAT_VERSION = 1
TEXT_FORMAT_VERSION = 1
PLAYLIST_FORMAT_VERSION = 2


@dataclass(frozen=True, slots=True, eq=False)
class Clock:
    """What all renditions of a presentation are timed by.

    ``unit``: units in a second, a multiple of every timescale. ``origin``: where the presentation is shown from, in units
    of folded time. ``shift``: seconds added to folded times. The other two are lengths in units.
    """

    unit: int
    origin: int
    shift: Fraction
    target: Fraction
    trick_interval: Fraction

    @property
    def begin(self) -> Fraction:
        """The origin on the shifted clock, in seconds."""
        return self.shift + Fraction(self.origin, self.unit)


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """An input that can be offered, with its folded times."""

    given: TrackInput
    folded: Folded

    @property
    def subject(self) -> str:
        return subject(self.given)


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """Where a member is cut; see :class:`~streamgate.media.renditions.Rendition`. ``times`` are folded, in ticks."""

    member: Member
    starts: NDArray[np.uint32]
    aligned: NDArray[np.uint32]
    times: NDArray[np.int64]


def seconds(value: float) -> Fraction:
    """A setting as the decimal fraction that its writer meant; at least a millisecond."""
    return max(Fraction(value).limit_denominator(1_000_000), Fraction(1, 1000))


def subject(given: TrackInput) -> str:
    """How a finding calls a track."""
    return f"{given.file or f'source {given.source}'} track {given.track.id}"


def offered(inputs: Sequence[TrackInput], findings: list[Finding]) -> list[Member]:
    """The inputs that can be offered; each other one, and each with a caveat, becomes a finding.

    Raises ``source_malformed`` for absurd times.
    """
    members = []
    for given in inputs:
        if given.codec.kind not in ("video", "audio") or not _playable(given, findings):
            continue
        try:
            members.append(Member(given, timeline.lay_out(given.track, given.movie_timescale)))
        except StreamGateError as e:
            if e.code != "edit_unsupported":
                raise
            findings.append(Finding(e.code, subject(given), e.detail))
    return members


def _playable(given: TrackInput, findings: list[Finding]) -> bool:
    codec, track = given.codec, given.track
    if not codec.playable:
        findings.append(
            codec.problem or Finding("codec_unsupported", subject(given), f"{codec.string} is not playable")
        )
    elif not track.samples or not track.timescale:
        findings.append(Finding("track_empty", subject(given), "it has no samples"))
    elif len({track.entries[n] for n in track.entries_used}) != 1:
        why = "it changes its codec configuration in the middle"
        findings.append(Finding("sample_entry_change", subject(given), why))
    else:
        findings += [codec.problem] if codec.problem else []
        return True
    return False


def clock_of(members: Sequence[Member], limits: Limits) -> Clock:
    """The common clock; raises ``source_malformed`` where the times of all tracks do not fit one clock of 64 bits."""
    folded = [m.folded for m in members]
    unit = lcm(*(f.timescale for f in folded))
    farthest = max(Fraction(max(abs(f.first_dts), abs(f.begin), abs(f.end)), f.timescale) for f in folded)
    if farthest * max(f.timescale for f in folded) > timeline.MAX_TICKS:
        raise StreamGateError("source_malformed", "the times of two tracks are too far apart")
    origin = timeline.origin_of(folded) * unit
    target, interval = seconds(limits.target) * unit, seconds(limits.trick_interval) * unit
    return Clock(unit, int(origin), timeline.shift_of(folded), target, interval)


def cut_video(
    members: Sequence[Member], clock: Clock, max_segment: float, findings: list[Finding]
) -> tuple[list[Cut], Ints, int | None, bool]:
    """Cut the rungs together: (those taken, inner boundaries, end, whether each segment can be decoded by itself).

    Boundaries and end are in units; the end is None where no rung is taken. What is refused becomes a finding.
    """
    closed = [timeline.closed_keyframes(m.folded, m.given.track) for m in members]
    rungs = [timeline.rung(m.folded, keys, clock.unit) for m, keys in zip(members, closed, strict=True)]
    max_gap = seconds(max_segment) * clock.unit
    opened = False
    if len(members) == 1:
        # The one exception: a rung by itself is cut at its open keyframes if it has no others (or too few). Nobody
        # switches there.
        syncs = timeline.open_keyframes(members[0].folded, members[0].given.track)
        at_open, rung = timeline.rung(members[0].folded, syncs, clock.unit), rungs[0]
        too_few = not len(rung.times) or timeline.widest(rung.times, rung.begin, rung.end) > max_gap
        opened = too_few and len(at_open.times) > len(rung.times)
        rungs = [at_open] if opened else rungs
    taken, common, refused = timeline.accept(rungs, max_gap)
    for n, code in sorted(refused.items()):
        why = {
            "gop_too_long": f"its keyframes are more than {max_segment:g} s apart",
            "keyframes_unaligned": "it shares too few closed keyframes with the rungs before it",
        }[code]
        findings.append(Finding(code, members[n].subject, why))
    if not taken:
        return [], common, None, True
    begin = min(rungs[n].begin for n in taken)
    boundaries = common[timeline.cut(common, begin, clock.origin, clock.target)]
    cuts = []
    for n in taken:
        starts = timeline.video_starts(rungs[n], boundaries)
        cuts.append(Cut(members[n], starts, starts, timeline.segment_times(members[n].folded, starts)))
    independent = not opened and all(len(closed[n]) and closed[n][0] == 0 for n in taken)
    return cuts, boundaries, max(rungs[n].end for n in taken), independent


def cut_audio(member: Member, boundaries: Ints, end: int | None, clock: Clock) -> Cut:
    aligned = timeline.audio_starts(member.folded, boundaries.tolist(), clock.unit, end, clock.origin, clock.target)
    # Equal neighbours fall together. np.unique does the same for ascending numbers, but imports numpy.ma for it.
    starts = aligned[np.append(True, aligned[1:] != aligned[:-1])]
    return Cut(member, starts, aligned, timeline.segment_times(member.folded, starts))


def text_grid(cuts: Sequence[Cut], clock: Clock) -> Ints:
    """The times (in units, shifted) at which text is cut: those of the first cut, continued by the longest one."""
    first = cuts[0]
    longest = max(cuts, key=lambda c: len(c.aligned))
    grid = first.times.astype(object) * (clock.unit // first.member.folded.timescale)
    if tail := len(longest.aligned) - len(first.aligned):
        more = longest.times[-tail:].astype(object) * (clock.unit // longest.member.folded.timescale)
        grid = np.concatenate((grid, more))
    grid[-1] = max(c.member.folded.end * (clock.unit // c.member.folded.timescale) for c in cuts)
    return grid + int(clock.shift * clock.unit)


def rendition(cut: Cut, clock: Clock, target_duration: int, independent: bool, taken: Container[str]) -> Rendition:
    """The rendition of a cut, under a name that is not ``taken``."""
    given, folded = cut.member.given, cut.member.folded
    moved = int(clock.shift * folded.timescale)
    keys, key_times = np.zeros(0, np.uint32), np.zeros(0, np.int64)
    if given.codec.kind == "video":
        keys, key_times = _trick_play(cut.member, clock)
    made = Rendition(
        name="",
        kind="video" if given.codec.kind == "video" else "audio",
        source=given.source,
        track=given.track,
        codec=given.codec,
        language=given.language,
        label=given.label,
        default=given.default,
        forced=given.forced,
        starts=cut.starts,
        aligned=cut.aligned,
        times=cut.times + moved,
        keyframe_samples=keys,
        keyframe_times=key_times + moved,
        shift=folded.offset + moved,
        decoded=folded.first_dts + moved,
        target_duration=target_duration,
        independent=independent,
    )
    promised = (
        cmaf.FORMAT_VERSION, TS_FORMAT_VERSION, PLAYLIST_FORMAT_VERSION,
        given.identity, given.track.id, given.codec.entry, given.language, made.shift, target_duration, independent,
        made.aligned.tobytes(), made.times.tobytes(), keys.tobytes(),
    )  # fmt: skip
    prefix = f"v{made.height}" if made.kind == "video" else f"a{given.language}"
    return replace(made, name=name(prefix, taken, *promised))


def _trick_play(member: Member, clock: Clock) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The first sync sample at or after each multiple of the interval, their folded pts, and the track's end."""
    folded = member.folded
    syncs = member.given.track.keyframes
    pts = folded.pts[syncs]
    later = np.diff(np.maximum.accumulate(pts), prepend=-timeline.MAX_TICKS * 2) > 0
    syncs, pts = syncs[later], pts[later]
    if not len(syncs):
        return np.zeros(0, np.uint32), np.zeros(0, np.int64)
    times = timeline.units(pts, clock.unit // folded.timescale)
    picks = [0, *timeline.cut(times, int(times[0]), clock.origin, clock.trick_interval)]
    spans = np.append(pts[picks], folded.end)
    if np.diff(spans).max() >= 1 << 32:  # a sample's duration has 32 bits
        return np.zeros(0, np.uint32), np.zeros(0, np.int64)
    return syncs[picks].astype(np.uint32), spans


def text_rendition(
    given: TextInput, grid: Ints, clock: Clock, zero: Fraction, target_duration: int, taken: Container[str]
) -> TextRendition:
    """The text cut at ``grid``, under a name that is not ``taken``; ``zero`` is the presentation's."""
    shift = clock.begin if given.from_start else clock.shift
    promised = (
        TEXT_FORMAT_VERSION, PLAYLIST_FORMAT_VERSION, given.identity, given.cues, given.language,
        grid.tolist(), clock.unit, shift, zero, target_duration,
    )  # fmt: skip
    return TextRendition(
        name=name(f"t{given.language}", taken, *promised),
        cues=given.cues,
        language=given.language,
        label=given.label,
        default=given.default,
        forced=given.forced,
        timescale=clock.unit,
        times=grid,
        shift=shift,
        zero=zero,
    )
