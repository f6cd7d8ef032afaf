"""Opening an asset: its files, their indexes, and the presentation made of them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from streamgate.errors import Finding, StreamGateError
from streamgate.media import presentation, preview
from streamgate.media.presentation import Limits, Presentation, TextInput, TrackInput
from streamgate.native.index import Index
from streamgate.storage import description, duplicates
from streamgate.storage.description import Description, SourceEntry, SubtitleEntry
from streamgate.storage.discovery import DESCRIPTION, AssetRef, Gates, discover, sidecars
from streamgate.storage.indexes import IndexStore, index_of
from streamgate.storage.objects.file import FileSource, signature
from streamgate.storage.objects.remote import RemoteSource
from streamgate.storage.objects.source import Source
from streamgate.storage.tracks import collect, sidecar_text

__all__ = ["Asset", "AssetRef", "Gates", "Limits", "Preparing", "RemuxJob", "discover", "open_asset"]


@dataclass(frozen=True, slots=True)
class RemuxJob:
    """A source whose container must be converted, and where the result is expected."""

    source: Path
    target: Path


class Preparing(StreamGateError):
    """Some sources of the asset must be converted first: ``asset_preparing``, with the jobs to be done."""

    def __init__(self, jobs: list[RemuxJob]) -> None:
        super().__init__("asset_preparing", f"{jobs[0].source.name} is being converted")
        self.jobs = jobs


@dataclass(frozen=True, slots=True)
class Asset:
    """An opened asset. ``sources[rendition.source]`` holds the bytes of a rendition; ``indexes`` run in parallel.

    Where it is ``remote`` its sources are ``objects`` of a store, and there are no ``sources``; ``followed`` are those and
    what else it was made of. ``tags`` are those of its description, ``poster`` is its picture.
    """

    id: str
    title: str
    sources: tuple[FileSource, ...]
    indexes: tuple[Index, ...]
    presentation: Presentation
    findings: tuple[Finding, ...]
    watched: tuple[tuple[Path, tuple[int, int, int]], ...]
    objects: tuple[RemoteSource, ...] = ()
    followed: tuple[RemoteSource, ...] = ()
    tags: tuple[str, ...] = ()
    poster: Source | None = None

    @property
    def remote(self) -> bool:
        """Whether its sources are objects of a store."""
        return bool(self.objects)

    async def replaced(self) -> bool:
        """Whether any object that it was made of is another now, or gone; a request each. Raises ``origin_*``."""
        import asyncio  # here, as who opens files needs none

        return any(await asyncio.gather(*(each.changed() for each in self.followed)))

    def changed(self) -> bool:
        """Whether any of its files was written, replaced or removed since it was opened; a few stat calls."""
        for path, before in self.watched:
            try:
                if signature(os.stat(path)) != before:
                    return True
            except OSError:
                return True
        return False


def open_asset(
    ref: AssetRef,
    limits: Limits = presentation.DEFAULT_LIMITS,
    *,
    data: Path | None = None,
    index_limits: Mapping[str, int] = MappingProxyType({}),
    index_store: IndexStore | None = None,
) -> Asset:
    """Open all sources of ``ref`` and build its presentation; blocking, a few milliseconds a source.

    ``data`` is the folder in which converted containers are kept; without it other containers are refused.
    ``index_limits`` are those of :func:`streamgate.native.isobmff.read_index`, by name.
    ``index_store`` keeps what was read of sources for the next time.
    Raises :class:`StreamGateError` with a ``source_*``, ``codec_*`` or ``asset_*`` code, and :class:`Preparing`.
    """
    watched: list[tuple[Path, tuple[int, int, int]]] = []
    folder = ref.folder
    described, seconds = _describe(ref, watched), 0.0
    if ref.preview_of:
        described, seconds = described.preview()
    sources: list[FileSource] = []
    indexes: list[Index] = []
    inputs: list[TrackInput] = []
    texts: list[TextInput] = []
    findings: list[Finding] = list(ref.findings)
    jobs: list[RemuxJob] = []
    for entry in described.sources:
        original = FileSource(folder / entry.file)
        watched.append((original.path, original.signature))
        opened = _open_source(original, data, jobs, findings, index_limits, index_store)
        if opened is None:
            continue
        source, index = opened
        sources.append(source)
        indexes.append(index)
        collect(len(sources) - 1, source, index, entry, inputs, texts, findings)
    if jobs:
        raise Preparing(jobs)
    for subtitle in described.subtitles:
        sidecar = FileSource(folder / subtitle.file)
        watched.append((sidecar.path, sidecar.signature))
        add_sidecar(sidecar, subtitle, texts, findings)
    poster = FileSource(folder / described.poster) if described.poster else None
    if poster is not None:
        watched.append((poster.path, poster.signature))
    built = build(inputs, texts, findings, sources, limits, seconds)
    return Asset(
        ref.id,
        described.title or ref.title,
        tuple(sources),
        tuple(indexes),
        built,
        (*findings, *built.findings),
        tuple(watched),
        tags=described.tags,
        poster=poster,
    )


def add_sidecar(sidecar: Source, entry: SubtitleEntry, texts: list[TextInput], findings: list[Finding]) -> None:
    """Add the subtitles of a file beside the media to ``texts``, or what is wrong with it to ``findings``."""
    try:
        texts.append(sidecar_text(sidecar, entry))
    except StreamGateError as e:
        if e.source != "creator":
            raise
        findings.append(Finding(e.code, entry.file, e.detail))


def build(
    inputs: list[TrackInput],
    texts: list[TextInput],
    findings: list[Finding],
    sources: Sequence[Source],
    limits: Limits,
    seconds: float = 0.0,
) -> Presentation:
    """The presentation of what was found, or of its first ``seconds``; raises ``source_empty``, or the one reason why nothing was."""
    if not inputs:
        codes = {finding.code for finding in findings}
        told = "; ".join(f"{finding.subject}: {finding.detail}" for finding in findings)
        raise StreamGateError(codes.pop() if len(codes) == 1 else "source_empty", told)
    distinct = duplicates.distinct_tracks(inputs, sources)
    read = duplicates.distinct_texts(texts)
    return preview.build(distinct, read, limits, seconds) if seconds else presentation.build(distinct, read, limits)


def _describe(ref: AssetRef, watched: list[tuple[Path, tuple[int, int, int]]]) -> Description:
    """The asset.toml, or what it would say of a lone file and its sidecars."""
    if ref.path.is_dir():
        source = FileSource(ref.path / DESCRIPTION)
        watched.append((source.path, source.signature))
        return description.parse(source.read(0, description.MAX_BYTES + 1))
    found = tuple(SubtitleEntry(path.name, language) for path, language in sidecars(ref.path))
    return Description(ref.title, (SourceEntry(ref.path.name),), found)


def _open_source(
    original: FileSource,
    data: Path | None,
    jobs: list[RemuxJob],
    findings: list[Finding],
    limits: Mapping[str, int],
    store: IndexStore | None,
) -> tuple[FileSource, Index] | None:
    """The source itself, or what its container was converted to; None where a job was added for that."""
    try:
        return original, index_of(original, limits, store)
    except StreamGateError as e:
        if e.code != "source_unsupported" or data is None or original.size == 0:
            raise StreamGateError(e.code, f"{original.path.name}: {e.detail}") from e
    target = data / "remuxed" / f"{original.identity().hex()}.mp4"
    if not target.exists():
        jobs.append(RemuxJob(original.path, target))
        return None
    source = FileSource(target)
    findings += _left_out(target)
    return source, index_of(source, limits, store)


def _left_out(target: Path) -> list[Finding]:
    """What the conversion could not carry; it says so beside its result."""
    try:
        told = FileSource(target.with_suffix(".json"))
    except StreamGateError:
        return []
    return [Finding(**finding) for finding in json.loads(told.read(0, told.size))]
