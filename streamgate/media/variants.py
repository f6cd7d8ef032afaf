"""How renditions are combined and ordered in the manifests: the most compatible first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from streamgate.media import languages
from streamgate.media.codecs import Codec
from streamgate.media.presentation import Presentation
from streamgate.media.renditions import Rendition, TextRendition

# What plays almost everywhere comes first: many players begin with the first variant, and old ones never leave it.
VIDEO_FAMILIES = ("h264", "vp9", "hevc", "av1")
AUDIO_STRINGS = ("mp4a.40.2", "mp4a.40.5", "mp4a.40.29")
AUDIO_FAMILIES = ("aac", "opus", "flac", "ac3", "eac3", "mp3")
# The variant to begin with is the best one up to this rate (HLS Authoring Specification for Apple Devices, rule 9.12).
START_BANDWIDTH = 2_000_000


@dataclass(frozen=True, slots=True)
class Choice:
    """A rendition as a viewer can choose it: ``name`` is unique in its group."""

    rendition: Rendition | TextRendition
    name: str
    language: str
    default: bool
    autoselect: bool


@dataclass(frozen=True, slots=True)
class AudioGroup:
    """Audio of one codec and channel layout, one choice for each language and content."""

    id: str
    renditions: tuple[Rendition, ...]
    choices: tuple[Choice, ...]

    @property
    def codecs(self) -> list[str]:
        return list(dict.fromkeys(r.codec.string for r in self.renditions))

    @property
    def bandwidth(self) -> int:
        return max(r.bandwidth for r in self.renditions)

    @property
    def average_bandwidth(self) -> int:
        return max(r.average_bandwidth for r in self.renditions)

    @property
    def default(self) -> Rendition:
        return next(r for r, c in zip(self.renditions, self.choices, strict=True) if c.default)


def _rank(order: Sequence[str], value: str) -> int:
    return order.index(value) if value in order else len(order)


def audio_rank(codec: Codec) -> tuple[int, int, str, int, int]:
    """Sorts the most compatible audio to the front: by codec, then stereo, mono, more channels."""
    channels = codec.channels
    return (
        _rank(AUDIO_FAMILIES, codec.family),
        _rank(AUDIO_STRINGS, codec.string),
        codec.string,
        {2: 0, 1: 1}.get(channels, 2),
        channels,
    )


def audio_groups(p: Presentation) -> list[AudioGroup]:
    """The audio groups, the most compatible first.

    All groups should have the same members (RFC 8216 section 4.3.4.1.1), which correspond by language and by their
    order within it. Where a group lacks one, it takes that of a more compatible group, but never that of a less
    compatible one: a player that does not know the codec would then refuse the whole variant.
    """
    ordered = sorted(p.audio, key=lambda r: audio_rank(r.codec))
    members: dict[tuple[str, int], Rendition] = {}
    layouts = []
    for _, group in groupby(ordered, key=lambda r: audio_rank(r.codec)):
        own: dict[tuple[str, int], Rendition] = {}
        for r in group:
            language = languages.bcp47(r.language)
            own[language, sum(1 for known, _ in own if known == language)] = r
        layouts.append((next(iter(own.values())).codec, members | own))
        members = own | members  # the most compatible stays
    union = dict(zip(members, choices(list(members.values()), "Audio"), strict=True))
    groups = []
    for codec, filled in layouts:
        known = [union[key] for key in filled]
        if not any(choice.default for choice in known):
            known[0] = replace(known[0], default=True, autoselect=True)
        groups.append(AudioGroup(f"{codec.string}-{codec.channels}ch", tuple(filled.values()), tuple(known)))
    return groups


def choices(renditions: Sequence[Rendition | TextRendition], what: str) -> list[Choice]:
    """How a viewer can choose among ``renditions``: at most one is the default, names differ (RFC 8216 section
    4.3.4.1).

    Of audio exactly one is the default, the first where none is said to be.
    """
    default = next((r for r in renditions if r.default), renditions[0] if what == "Audio" and renditions else None)
    automatic: dict[tuple[str, bool], Rendition | TextRendition] = {}
    for r in (*([default] if default else ()), *renditions):
        automatic.setdefault((languages.bcp47(r.language), r.forced), r)
    made: list[Choice] = []
    for r in renditions:
        language = languages.bcp47(r.language)
        name = plain = r.label.strip() or languages.native_name(language) or what
        twin = 1
        while any(name == other.name for other in made):
            twin += 1
            name = f"{plain} {twin}"
        made.append(Choice(r, name, language, r is default, automatic[language, r.forced] is r))
    return made


def video_families(p: Presentation) -> list[list[Rendition]]:
    """The rungs by codec family and dynamic range, the most compatible first; bandwidth ascending."""

    def family(r: Rendition) -> tuple[int, str, int, str]:
        return _rank(VIDEO_FAMILIES, r.codec.family), r.codec.family, r.codec.video_range != "SDR", r.codec.video_range

    ordered = sorted(p.video, key=lambda r: (family(r), r.bandwidth))
    return [list(group) for _, group in groupby(ordered, key=family)]


def start_first(rungs: Sequence[Rendition]) -> list[Rendition]:
    """``rungs`` (bandwidth ascending) with the one to begin with in front."""
    start = max((r for r in rungs if r.bandwidth <= START_BANDWIDTH), key=lambda r: r.bandwidth, default=rungs[0])
    return [start, *(r for r in rungs if r is not start)]
