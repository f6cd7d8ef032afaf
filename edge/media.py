"""From a target and an opened asset to an entry. Everything here blocks, and runs in a thread where it may take long."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial

from edge import cmsd, entries, tags
from edge.assets import Opened
from edge.entries import Body, Entry, Fetched
from edge.origin import bodies
from edge.routes import Target
from streamgate.core.settings import EdgeSettings
from streamgate.errors import StreamGateError
from streamgate.media import dash, hls
from streamgate.media.presentation import Rendition, TextRendition
from streamgate.native.gather import Plan
from streamgate.native.mpegts import Muxer
from streamgate.storage.objects.file import FileSource, signature

HLS = "application/vnd.apple.mpegurl"
DASH = "application/dash+xml"
VTT = "text/vtt; charset=utf-8"
TS = "video/mp2t"

# Routes whose bodies are cut or muxed when they are sent.
CUT = frozenset(("segment", "keyframe", "ts_segment"))
# Routes whose entries are ready in microseconds: a thread would cost more than the work.
QUICK = frozenset(("init", "segment", "keyframe"))


def build(target: Target, opened: Opened, settings: EdgeSettings) -> Entry:
    """The entry that ``target`` asks for, with its cache tags if these are sent.

    Raises ``rendition_gone`` for a name that the asset does not have (any more), ``segment_not_found``,
    ``ts_unavailable``, or ``not_found`` where the rendition is of another kind.
    """
    entry = _build(target, opened, settings)
    if settings.cmsd:
        told = cmsd.static(target, opened.asset.presentation, entry.size, settings.cmsd)
        entry = replace(entry, headers={**entry.headers, cmsd.STATIC: told})
    if settings.cache_tags:
        return replace(entry, headers={**entry.headers, tags.FIELD: tags.field(target, opened.asset.tags)})
    return entry


def freshness(settings: EdgeSettings) -> str:
    """Cache-Control of manifests, without its scope; the last two are of RFC 5861."""
    told = f"max-age={settings.manifest_max_age}"
    if settings.stale_while_revalidate:
        told += f", stale-while-revalidate={settings.stale_while_revalidate}"
    if settings.stale_if_error:
        told += f", stale-if-error={settings.stale_if_error}"
    return told


def _build(target: Target, opened: Opened, settings: EdgeSettings) -> Entry:
    made = opened.asset.presentation
    fresh = freshness(settings)
    match target.route.name:
        case "multivariant":
            return entries.text(hls.multivariant(made), HLS, fresh)
        case "multivariant_ts":
            return entries.text(hls.multivariant(made, ts=True), HLS, fresh)
        case "mpd":
            return entries.text(dash.mpd(made), DASH, fresh)
        case "ts_playlist":
            video, audio = _variant(opened, target)
            name = f"{target.rendition}+{target.audio}"
            return entries.text(hls.ts_playlist(made, video, audio), HLS, entries.IMMUTABLE, tag=name)
        case "ts_segment":
            return _ts_segment(opened, target, settings)
        case "media_playlist":
            rendition = _find(opened, target.rendition)
            return entries.text(hls.media_playlist(made, rendition), HLS, entries.IMMUTABLE, tag=rendition.name)
        case "text_segment" | "text":
            return _text(opened, target)
    rendition = _find(opened, target.rendition)
    if not isinstance(rendition, Rendition):
        raise StreamGateError("not_found", "subtitles have no such file")
    tag = f"{rendition.name}/{target.leaf}"
    content_type = media_type(rendition)
    if target.route.name == "init":
        return Entry(content_type, tag, entries.IMMUTABLE, rendition.init())
    if target.route.name == "segment":
        if target.number >= rendition.segments:
            raise StreamGateError("segment_not_found", f"{rendition.name} has {rendition.segments} segments")
        return Entry(content_type, tag, entries.IMMUTABLE, _segment(opened, rendition, target.number))
    if rendition.kind != "video":
        raise StreamGateError("not_found", "only video has keyframes")
    if target.route.name == "iframe_playlist":
        return entries.text(hls.iframe_playlist(made, rendition), HLS, entries.IMMUTABLE, tag=rendition.name)
    if target.number >= rendition.keyframes:
        raise StreamGateError("segment_not_found", f"{rendition.name} has {rendition.keyframes} keyframes")
    return Entry(content_type, tag, entries.IMMUTABLE, _keyframe(opened, rendition, target.number))


def _segment(opened: Opened, rendition: Rendition, number: int) -> Body | Fetched:
    asset, plan = opened.asset, rendition.segment(number)
    if opened.origin is not None:
        window, source = bodies.window_of(asset, rendition, number), asset.objects[rendition.source]
        read_as = f"/v/{asset.id}/{source.key} {window[0]}+{window[1]}" if window != plan.span else ""
        others = partial(_beside, opened, rendition, number)
        return bodies.RemoteCut(plan, source, opened.origin, "segment", window, read_as, others)
    last = number + 1 == rendition.segments
    ahead = (0, 0) if last else rendition.segment(number + 1).span
    return PlanCut(plan, asset.sources[rendition.source], "segment", ahead=ahead)


def _beside(opened: Opened, rendition: Rendition, number: int) -> list[tuple[str, Entry]]:
    """The other segments of this number that lie interleaved with this one: their paths and entries."""
    found = []
    for other in bodies.sharers(opened.asset, rendition, number):
        if other is not rendition:
            tag = f"{other.name}/{number}.m4s"
            body = _segment(opened, other, number)
            found.append((f"/v/{opened.asset.id}/{tag}", Entry(media_type(other), tag, entries.IMMUTABLE, body)))
    return found


def _keyframe(opened: Opened, rendition: Rendition, number: int) -> Body | Fetched:
    asset, plan = opened.asset, rendition.keyframe(number)
    if opened.origin is not None:
        return bodies.RemoteCut(plan, asset.objects[rendition.source], opened.origin, "keyframe", plan.span)
    return PlanCut(plan, asset.sources[rendition.source], "keyframe")


@dataclass(frozen=True, slots=True)
class PlanCut:
    """A body cut from one source by a plan, in blocks of any size; close ranges of the source are read together."""

    plan: Plan
    source: FileSource
    kind: str
    whole: bool = False
    # Offset and length of what will probably be read next.
    ahead: tuple[int, int] = (0, 0)

    @property
    def size(self) -> int:
        """Bytes of the whole body."""
        return self.plan.size

    def read(self, start: int, length: int) -> bytes:
        """Bytes [start, start + length); raises ``source_changed`` where the file was written to since it was opened."""
        try:
            data = self.plan.from_fd(self.source.fd, start, length)
        except StreamGateError:
            check_unchanged(self.source)
            raise
        check_unchanged(self.source)
        if self.ahead[1] and start + length >= self.size:
            self.source.read_ahead(*self.ahead)
        return data

    def all(self) -> bytes:
        """The whole body; raises as :meth:`read`."""
        return self.read(0, self.size)


@dataclass(frozen=True, slots=True)
class TsCut:
    """A muxed segment, always made whole."""

    opened: Opened
    muxer: Muxer
    variant: tuple[Rendition | None, Rendition | None]
    number: int
    size: int
    kind: str = "ts"
    whole: bool = True

    def read(self, start: int, length: int) -> bytes:
        """Bytes [start, start + length) of the segment, which is muxed anew."""
        video, audio = (self._payload(rendition) for rendition in self.variant)
        data = self.muxer.segment(self.number, video, audio)
        return data if length == len(data) else data[start : start + length]

    def _payload(self, rendition: Rendition | None) -> bytes:
        if rendition is None:
            return b""
        return PlanCut(rendition.ts_payload(self.number), self.opened.asset.sources[rendition.source], self.kind).all()


def media_type(rendition: Rendition) -> str:
    """The Content-Type of its init segment and of all others (RFC 6381 section 3: without parameters, any MP4)."""
    return "video/mp4" if rendition.kind == "video" else "audio/mp4"


def check_unchanged(source: FileSource) -> None:
    """What was read may only go out under its immutable name if the file is still the one that was opened."""
    if signature(os.fstat(source.fd)) != source.signature:
        raise StreamGateError("source_changed", f"{source.path.name} was written to while it was being streamed")


def _find(opened: Opened, name: str) -> Rendition | TextRendition:
    found = opened.asset.presentation.renditions.get(name)
    if found is None:
        raise StreamGateError("rendition_gone")
    return found


def _variant(opened: Opened, target: Target) -> tuple[Rendition | None, Rendition | None]:
    """The halves of a muxed URL, which must be a variant that the TS playlists name."""
    variant = opened.asset.presentation.ts_variants.get(f"{target.rendition}+{target.audio}")
    if variant is not None:
        return variant
    for name in (target.rendition, target.audio):
        if name != "none":
            _find(opened, name)
    raise StreamGateError("ts_unavailable")


def _ts_segment(opened: Opened, target: Target, settings: EdgeSettings) -> Entry:
    variant = _variant(opened, target)
    muxer = opened.asset.presentation.ts_muxer(target.rendition, target.audio)
    if target.number >= muxer.segments:
        raise StreamGateError("segment_not_found", f"there are {muxer.segments} segments")
    size = int(muxer.sizes()[target.number])
    if size > settings.max_ts_segment:
        raise StreamGateError("ts_unavailable", f"the segment has {size} bytes, more than edge.max_ts_segment allows")
    tag = f"{target.rendition}+{target.audio}/{target.leaf}"
    body: Body | Fetched = TsCut(opened, muxer, variant, target.number, size)
    if opened.origin is not None:
        body = bodies.RemoteTs(opened.asset, opened.origin, muxer, variant, target.number, size)
    return Entry(TS, tag, entries.IMMUTABLE, body)


def _text(opened: Opened, target: Target) -> Entry:
    rendition = _find(opened, target.rendition)
    if not isinstance(rendition, TextRendition):
        raise StreamGateError("not_found", "this rendition is not subtitles")
    if target.route.name == "text":
        return entries.text(rendition.whole(), VTT, entries.IMMUTABLE, tag=rendition.name)
    if target.number >= rendition.segments:
        raise StreamGateError("segment_not_found", f"{rendition.name} has {rendition.segments} segments")
    return entries.text(
        rendition.segment(target.number), VTT, entries.IMMUTABLE, tag=f"{rendition.name}/{target.number}"
    )
