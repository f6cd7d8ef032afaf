"""What a player will probably ask for next: the following segments of its rendition, and of those that it may change to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edge.routes import SEGMENT, TS_SEGMENT, Target
from streamgate.media.presentation import Presentation, Rendition

FOLLOWED = frozenset((SEGMENT.name, TS_SEGMENT.name))
"""Routes that are asked for one after another."""


def following(made: Presentation, asked: Target, ahead: int, neighbours: int) -> list[Target]:
    """What comes after ``asked``, a target of FOLLOWED, most probable first: the next segment, the sound beside it, ``ahead``
    segments of the rendition, and the next one of each of ``neighbours`` bitrates below and above.

    Blocking where the renditions' bitrates are not known yet: some ms.
    """
    numbers = range(asked.number + 1, asked.number + 1 + ahead)
    if asked.route is TS_SEGMENT:
        found = [ts_target(asked.asset, asked.rendition, asked.audio, n) for n in numbers]
        for name in _beside(_rungs(made, asked.rendition), asked.rendition, neighbours):
            if f"{name}+{asked.audio}" in made.ts_variants:
                found.append(ts_target(asked.asset, name, asked.audio, numbers[0]))
        # One behind the last is not there, and that is told by whoever would make it.
        return found
    own = made.renditions.get(asked.rendition)
    if not isinstance(own, Rendition):
        return []
    sound = made.audio if own.kind == "video" else ()
    default = next((each for each in sound if each.default), next(iter(sound), None))
    wanted = [(own, numbers[0])]
    wanted += [(default, numbers[0])] if default is not None else []
    wanted += [(own, n) for n in numbers[1:]]
    rungs = _rungs(made, own.name)
    for name in _beside(rungs, own.name, neighbours):
        wanted.append((next(each for each in rungs if each.name == name), numbers[0]))
    return [segment_target(asked.asset, each, n) for each, n in wanted if n < each.segments]


def segment_target(asset: str, rendition: Rendition, number: int) -> Target:
    """The segment ``number`` of a rendition."""
    return Target(SEGMENT, asset, rendition.name, "", number, f"{number}.m4s")


def ts_target(asset: str, video: str, audio: str, number: int) -> Target:
    """The muxed segment ``number`` of a pair."""
    return Target(TS_SEGMENT, asset, video, audio, number, f"{number}.ts")


def path_of(target: Target) -> str:
    """The path of a target."""
    folder = f"{target.rendition}+{target.audio}" if target.audio else target.rendition
    return f"/v/{target.asset}/{folder}{folder and '/'}{target.leaf}"


def _rungs(made: Presentation, name: str) -> list[Rendition]:
    """The renditions that a player may take instead of this one, itself among them, by bitrate."""
    own = made.renditions.get(name)
    if not isinstance(own, Rendition):
        return []
    every: Sequence[Rendition] = made.video if own.kind == "video" else made.audio
    same = [each for each in every if (each.codec.family, each.language) == (own.codec.family, own.language)]
    return sorted(same, key=lambda each: each.bandwidth)


def _beside(rungs: list[Rendition], name: str, neighbours: int) -> Iterator[str]:
    """The names next to one, the nearest first, of each distance the lower bitrate first."""
    names = [each.name for each in rungs]
    if name not in names:
        return
    at = names.index(name)
    for distance in range(1, neighbours + 1):
        for n in (at - distance, at + distance):
            if 0 <= n < len(names):
                yield names[n]
