"""From a source and its index to what a presentation is made of: media tracks, subtitles, and findings."""

from __future__ import annotations

from streamgate.errors import Finding, StreamGateError
from streamgate.media import codecs, subtitles, timeline
from streamgate.media.empty_samples import without_empty
from streamgate.media.presentation import TextInput, TrackInput
from streamgate.native.index import Index
from streamgate.native.samples import Track
from streamgate.storage.description import SourceEntry, SubtitleEntry
from streamgate.storage.objects.source import Source

_GENERIC_NAMES = ("handler", "gpac", "iso media", "core media", "mainconcept", "l-smash", "bento4", "apple")


def collect(
    number: int,
    source: Source,
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


def _codec(source: Source, track: Track) -> codecs.Codec:
    """What the track's sample entry and, where that does not tell all, the heads of some samples say."""
    entry = track.entries[track.entries_used[0]]
    wanted = codecs.wants_first_sample(entry)
    delta = int(track.deltas(0, 1)[0])

    def described(sample: int) -> codecs.Codec:
        # No range: an empty sample.
        ranges = track.ranges(sample, sample + 1).tolist() if wanted else []
        head = b"".join(source.look([(offset, min(length, wanted)) for offset, length in ranges]))
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


def _cues(source: Source, index: Index, track: Track, codec: codecs.Codec) -> tuple[subtitles.Cue, ...]:
    """All cues of a text track, in milliseconds of the movie."""
    if codec.family not in _TEXT:
        raise StreamGateError("codec_unsupported", f"{codec.string} subtitles")
    start = timeline.fold(track.edits, track.timescale, index.timescale)
    times = (track.dts() + start) * 1000 // track.timescale
    ends = (track.dts() + start + track.deltas()) * 1000 // track.timescale
    each = [[(int(offset), int(length)) for offset, length in track.ranges(n, n + 1)] for n in range(track.samples)]
    pieces = iter(source.look([wanted for sample in each for wanted in sample]))
    bodies = [b"".join(next(pieces) for _ in sample) for sample in each]
    return tuple(_TEXT[codec.family]([(int(times[n]), int(ends[n]), body) for n, body in enumerate(bodies)]))


def sidecar_text(source: Source, entry: SubtitleEntry) -> TextInput:
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
