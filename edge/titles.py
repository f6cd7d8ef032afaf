"""All that a title consists of, as paths."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from edge import routes
from edge.routes import Target
from streamgate.errors import StreamGateError
from streamgate.media.presentation import Presentation, Rendition, TextRendition


def objects(
    made: Presentation, asset: str, renditions: Sequence[str] = (), manifests: bool = True, limit: int = 0
) -> list[Target]:
    """What there is of a title, in this order: manifests, init segments, then all renditions' segments number by number, as
    they lie in interleaved files. Raises ``rendition_gone`` where one that is asked for is none of them.
    """
    every = made.renditions
    names = [name for name in every if {name, name.partition("-")[0]} & set(renditions)]
    found = set(names) | {name.partition("-")[0] for name in names}
    if missing := set(renditions) - found:
        raise StreamGateError("rendition_gone", ", ".join(sorted(missing)))
    chosen = [every[name] for name in names or every]
    leaves: list[str] = []
    if manifests:
        leaves += ["main.m3u8", "main.mpd"] + ["main-ts.m3u8"] * bool(made.ts_variants)
        leaves += [f"{each.name}/index.m3u8" for each in chosen]
        leaves += [
            f"{each.name}/iframes.m3u8" for each in chosen if isinstance(each, Rendition) and each.kind == "video"
        ]
    leaves += [f"{each.name}/init.mp4" for each in chosen if isinstance(each, Rendition)]
    if manifests:
        leaves += [f"{each.name}/all.vtt" for each in chosen if isinstance(each, TextRendition)]
    most = max(each.segments for each in chosen)
    numbers = range(min(most, limit) if limit else most)
    segments = ((each, n) for n in numbers for each in chosen if n < each.segments)
    cut = (f"{each.name}/{n}.{'vtt' if isinstance(each, TextRendition) else 'm4s'}" for each, n in segments)
    return [routes.match(f"/v/{asset}/{leaf}") for leaf in chain(leaves, cut)]
