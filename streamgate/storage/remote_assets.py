"""Opening an asset whose sources are objects of a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from streamgate.errors import Finding, StreamGateError
from streamgate.media.presentation import Limits, TextInput, TrackInput
from streamgate.native.index import Index
from streamgate.storage import description
from streamgate.storage.assets import Asset, add_sidecar, build
from streamgate.storage.description import Description, SourceEntry, SubtitleEntry
from streamgate.storage.discovery import DESCRIPTION, AssetRef, sidecar_language
from streamgate.storage.indexes import IndexStore, index_of
from streamgate.storage.objects.remote import Bridge, RemoteSource
from streamgate.storage.objects.store import ObjectInfo, ObjectStore, Replicated
from streamgate.storage.tracks import collect


def open_remote(
    ref: AssetRef,
    store: ObjectStore,
    bridge: Bridge,
    limits: Limits,
    *,
    index_limits: Mapping[str, int],
    index_store: IndexStore | None = None,
) -> Asset:
    """Open all sources of ``ref``, whose ``files`` are objects of ``store``; blocking, in a thread that is not the loop's.

    A source whose index and looks are in ``index_store`` is opened without a request.
    Raises :class:`StreamGateError` with a ``source_*``, ``origin_*``, ``codec_*`` or ``asset_*`` code.
    """
    files = {_below(ref, info): info for info in ref.files}
    followed: list[RemoteSource] = []

    def found(name: str) -> RemoteSource:
        if name not in files:
            raise StreamGateError("source_not_found", f"{name}: no such object")
        info = bridge.run(store.agreed(files[name])) if isinstance(store, Replicated) else files[name]
        followed.append(RemoteSource(store, info, bridge, index_store))
        return followed[-1]

    described, seconds = _described(ref, files, found), 0.0
    if ref.preview_of:
        described, seconds = described.preview()
    sources: list[RemoteSource] = []
    indexes: list[Index] = []
    inputs: list[TrackInput] = []
    texts: list[TextInput] = []
    findings: list[Finding] = list(ref.findings)
    for entry in described.sources:
        source = found(entry.file)
        try:
            index = index_of(source, index_limits, index_store)
        except StreamGateError as e:
            if e.source == "origin":
                raise  # which names it
            raise StreamGateError(e.code, f"{source.name}: {e.detail}") from e
        sources.append(source)
        indexes.append(index)
        collect(len(sources) - 1, source, index, entry, inputs, texts, findings)
    for subtitle in described.subtitles:
        add_sidecar(found(subtitle.file), subtitle, texts, findings)
    poster = found(described.poster) if described.poster else None
    built = build(inputs, texts, findings, sources, limits, seconds)
    for each in followed:
        each.opened()
    return Asset(
        ref.id,
        described.title or ref.title,
        (),
        tuple(indexes),
        built,
        (*findings, *built.findings),
        (),
        tuple(sources),
        tuple(followed),
        described.tags,
        poster,
    )


def _below(ref: AssetRef, info: ObjectInfo) -> str:
    """The object's name as asset.toml has it."""
    return info.key.removeprefix(f"{ref.path}/")


def _described(ref: AssetRef, files: Mapping[str, ObjectInfo], found: Callable[[str], RemoteSource]) -> Description:
    if DESCRIPTION in files:
        source = found(DESCRIPTION)
        return description.parse(source.read(0, description.MAX_BYTES + 1))
    media = Path(ref.files[0].key)
    beside = [(info.key, sidecar_language(media, Path(info.key)) or "und") for info in ref.files[1:]]
    return Description(
        ref.title, (SourceEntry(media.name),), tuple(SubtitleEntry(name, language) for name, language in beside)
    )
