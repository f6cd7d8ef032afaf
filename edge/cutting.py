"""Segments for the hot path where no tier keeps them: cut as they are sent, out of a file that the kernel has in memory."""

from __future__ import annotations

from edge import cmsd, heads, media
from edge.entries import IMMUTABLE, Entry
from edge.node import Node
from edge.routes import SEGMENT, Target
from edge.tags import FIELD, field
from edge.tiers.stored import lines
from streamgate.errors import StreamGateError
from streamgate.media.presentation import Rendition
from streamgate.native.gather import Plan
from streamgate.native.mapped import Cut
from streamgate.native.stored import Stored
from streamgate.storage.objects.file import FileSource

_HEADS = 4096
_TAG = "\0"


class Cutter:
    """Asked by the hot path for what is in no tier. What is not at hand, or not to be cut, is left to the other way.

    Nothing here waits: a source that is not in memory is read by a thread, on that other way.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._largest = node.settings.edge.max_buffered_segment
        self._heads: dict[tuple[str, tuple[str, ...], str, bool], tuple[bytes, bytes]] = {}

    def __call__(self, path: bytes, gated: bool) -> Stored | None:
        """The segment at the canonical ``path``, ready to be cut; None: somebody else must look."""
        found = SEGMENT.pattern.fullmatch(path.decode("latin-1"))
        opened = self._node.assets.known(found["asset"]) if found else None
        if found is None or opened is None or opened.asset.remote or self._node.assets.embeds(found["asset"]):
            return None
        rendition, number = opened.asset.presentation.renditions.get(found["rendition"]), int(found["number"])
        if not isinstance(rendition, Rendition) or number >= rendition.segments:
            return None
        plan, source = rendition.segment(number), opened.asset.sources[rendition.source]
        if plan.size > self._largest or self._node.tiers.memory.fits(plan.size):
            return None
        held = self._node.budget.reserve(plan.size, source)
        body = at_hand(plan, source) if held is not None else None
        if body is None:
            return None
        head, content = self._lines(
            Target(SEGMENT, found["asset"], rendition.name), opened.asset.tags, rendition, gated
        )
        if name := self._node.settings.edge.cmsd:
            target = Target(SEGMENT, found["asset"], rendition.name, "", number)
            told = cmsd.static(target, opened.asset.presentation, plan.size, name)
            head += f"{cmsd.STATIC}: {told}\r\n".encode()
        tag = f"{rendition.name}/{number}.m4s".encode()
        return Stored(b'"%b"' % tag, head.replace(b"\0", tag), content, body, route="segment", gated=gated, owner=held)

    def _lines(self, target: Target, tags: tuple[str, ...], rendition: Rendition, gated: bool) -> tuple[bytes, bytes]:
        """The fields of an answer, those of 304 and the others, made once for all segments; NUL stands for the tag."""
        named = (target.asset, tags, rendition.name, gated)
        known = self._heads.get(named)
        if known is None:
            sent = {FIELD: field(target, tags)} if self._node.settings.edge.cache_tags else {}
            entry = Entry(media.media_type(rendition), _TAG, IMMUTABLE, b"", headers=sent)
            head, content = heads.representation(entry, "private" if gated else "public")
            heads.common(self._node.cors, None, head)
            head["Cache-Status"] = heads.cache_status("", asked=True)
            if len(self._heads) >= _HEADS:
                self._heads.clear()
            known = self._heads[named] = lines(head), lines(content)
        return known


def at_hand(plan: Plan, source: FileSource) -> Cut | bytes | None:
    """What ``plan`` gives, to be sent from where the kernel has it, or a copy; None where the disk would have to be read."""
    try:
        if source.mapped.resident(plan):
            return Cut(plan, source.mapped)
        copy = plan.from_page_cache(source.fd)
        return copy if source.mapped.unchanged else None
    except StreamGateError:
        return None
