"""Opening an asset: its files, their indexes, and the presentation made of them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from streamgate.errors import Finding, StreamGateError
from streamgate.media import codecs, presentation, subtitles, timeline
from streamgate.media.empty_samples import without_empty
from streamgate.media.presentation import Limits, Presentation, TextInput, TrackInput
from streamgate.native.index import Index
from streamgate.native.samples import Track
from streamgate.storage import description, duplicates
from streamgate.storage.description import Description, SourceEntry, SubtitleEntry
from streamgate.storage.discovery import DESCRIPTION, AssetRef, Gates, discover, sidecars
from streamgate.storage.indexes import IndexStore, index_of
from streamgate.storage.objects.file import FileSource, signature

__all__ = ["Asset", "AssetRef", "Gates", "Limits", "Preparing", "RemuxJob", "discover", "open_asset"]

_GENERIC_NAMES = ("handler", "gpac", "iso media", "core media", "mainconcept", "l-smash", "bento4", "apple")


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
    """An opened asset. ``sources[rendition.source]`` holds the bytes of a rendition; ``indexes`` run in parallel."""

    id: str
    title: str
    sources: tuple[FileSource, ...]
    indexes: tuple[Index, ...]
    presentation: Presentation
    findings: tuple[Finding, ...]
    watched: tuple[tuple[Path, tuple[int, int, int]], ...]

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
    described = _describe(ref, watched)
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
        _collect(len(sources) - 1, source, index, entry, inputs, texts, findings)
    if jobs:
        raise Preparing(jobs)
    for subtitle in described.subtitles:
        sidecar = FileSource(folder / subtitle.file)
        watched.append((sidecar.path, sidecar.signature))
        try:
            texts.append(_sidecar_text(sidecar, subtitle))
        except StreamGateError as e:
            findings.append(Finding(e.code, subtitle.file, e.detail))
    if not inputs:
        codes = {finding.code for finding in findings}
        told = "; ".join(f"{finding.subject}: {finding.detail}" for finding in findings)
        raise StreamGateError(codes.pop() if len(codes) == 1 else "source_empty", told)
    inputs = duplicates.distinct_tracks(inputs, sources)
    built = presentation.build(inputs, duplicates.distinct_texts(texts), limits)
    return Asset(
        ref.id,
        described.title or ref.title,
        tuple(sources),
        tuple(indexes),
        built,
        (*findings, *built.findings),
        tuple(watched),
    )


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


def _collect(
    number: int,
    source: FileSource,
    index: Index,
    entry: SourceEntry,
    inputs: list[TrackInput],
    texts: list[TextInput],
    findings: list[Finding],
) -> None:
    """Sort the tracks of one source into media, text and findings."""
    identity = source.identity(index.dumps())
    wanted = entry.tracks
    if wanted is not None and (missing := set(wanted) - {track.id for track in index.tracks}):
        raise StreamGateError("asset_description", f"asset.toml: {entry.file} has no track {min(missing)}")
    for track in index.tracks:
        if wanted is not None and track.id not in wanted:
            continue
        subject = f"{entry.file} track {track.id}"
        try:
            if track.handler in ("vide", "soun"):
                track = without_empty(track)
            if not track.samples or not track.payload:
                raise StreamGateError("track_empty")
            codec = _codec(source, track)
            language = entry.language or track.language
            if codec.kind == "text":
                cues = _cues(source, index, track, codec)
                texts.append(
                    TextInput(identity, cues, language, entry.label or _label(track), bool(entry.default), False)
                )
                continue
            inputs.append(
                TrackInput(
                    source=number,
                    identity=identity,
                    track=track,
                    codec=codec,
                    language=language,
                    label=entry.label or _label(track),
                    default=bool(entry.default),
                    movie_timescale=index.timescale,
                    file=entry.file,
                )
            )
        except StreamGateError as e:
            if e.source != "creator":
                raise
            findings.append(Finding(e.code, subject, e.detail))


def _codec(source: FileSource, track: Track) -> codecs.Codec:
    """What the track's sample entry and, where that does not tell all, the heads of some samples say."""
    entry = track.entries[track.entries_used[0]]
    wanted = codecs.wants_first_sample(entry)
    delta = int(track.deltas(0, 1)[0])

    def described(sample: int) -> codecs.Codec:
        # No range: an empty sample.
        ranges = track.ranges(sample, sample + 1).tolist() if wanted else []
        head = b"".join(source.read(offset, min(length, wanted)) for offset, length in ranges)
        return codecs.describe(entry, handler=track.handler, first_sample=head, timescale=track.timescale, delta=delta)

    codec = described(0)
    if wanted and track.handler == "vide":
        # An hev1 or avc3 is renamed where no keyframe that is looked at brings parameter sets of its own.
        keyframes = track.keyframes
        for sample in {int(n) for n in (*keyframes[keyframes.size // 2 :][:1], *keyframes[-1:])} - {0}:
            if codec.entry[4:8] == entry[4:8]:
                break
            codec = described(sample)
    return codec


def _label(track: Track) -> str:
    """The handler's name where somebody wrote it for people."""
    name = track.name.strip()
    return "" if any(generic in name.lower() for generic in _GENERIC_NAMES) else name


_TEXT = {"tx3g": subtitles.parse_tx3g, "wvtt": subtitles.parse_wvtt}


def _cues(source: FileSource, index: Index, track: Track, codec: codecs.Codec) -> tuple[subtitles.Cue, ...]:
    """All cues of a text track, in milliseconds of the movie."""
    if codec.family not in _TEXT:
        raise StreamGateError("codec_unsupported", f"{codec.string} subtitles")
    start = timeline.fold(track.edits, track.timescale, index.timescale)
    times = (track.dts() + start) * 1000 // track.timescale
    ends = (track.dts() + start + track.deltas()) * 1000 // track.timescale
    samples = []
    for n in range(track.samples):
        pieces = [source.read(int(offset), int(length)) for offset, length in track.ranges(n, n + 1)]
        samples.append((int(times[n]), int(ends[n]), b"".join(pieces)))
    return tuple(_TEXT[codec.family](samples))


def _sidecar_text(source: FileSource, entry: SubtitleEntry) -> TextInput:
    if source.size > subtitles.MAX_BYTES:
        raise StreamGateError("subtitle_malformed", f"longer than {subtitles.MAX_BYTES} bytes")
    data = source.read(0, source.size)
    parse = subtitles.parse_srt if entry.file.lower().endswith(".srt") else subtitles.parse_vtt
    return TextInput(
        source.identity(),
        tuple(parse(data)),
        entry.language,
        entry.label or "",
        entry.default,
        entry.forced,
        from_start=True,
    )
