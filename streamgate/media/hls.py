"""HLS playlists: RFC 8216, and draft-pantos-hls-rfc8216bis-17 ("bis") where a rule is marked so.

All URIs are relative, so that a token in the path reaches every child request.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np

from streamgate.errors import StreamGateError
from streamgate.media import bandwidth
from streamgate.media.presentation import Presentation
from streamgate.media.renditions import Rendition, TextRendition, microseconds
from streamgate.media.variants import AudioGroup, Choice, audio_groups, choices, start_first, video_families

SUBTITLES = "subtitles"
NOTICEABLE = Fraction(1, 10)  # s; shorter pieces in front of an edit are rounding, and not worth a seek
PLAYED_EVERYWHERE = frozenset(("aac", "opus", "flac"))
# Line ends, quotes and other control characters have no place in a quoted-string (RFC 8216 section 4.2).
_UNQUOTABLE = dict.fromkeys((*range(0x20), 0x7F, 0x85, 0x2028, 0x2029), " ") | {0x22: "'"}


def version(lines: Iterable[str]) -> int:
    """The lowest protocol version that a playlist with these lines needs (RFC 8216 section 7)."""
    lines = list(lines)
    iframes_only = "#EXT-X-I-FRAMES-ONLY" in lines
    needed = 1
    for line in lines:
        tag, _, value = line.partition(":")
        if tag == "#EXTINF" and "." in value.partition(",")[0]:
            needed = max(needed, 3)
        elif tag in ("#EXT-X-I-FRAMES-ONLY", "#EXT-X-BYTERANGE"):
            needed = max(needed, 4)
        elif tag == "#EXT-X-MAP":
            needed = max(needed, 5 if iframes_only else 6)
    return needed


def media_playlist(p: Presentation, rendition: Rendition | TextRendition) -> str:
    """The media playlist of one rendition: ``{rendition}/index.m3u8``."""
    times = microseconds(rendition.times, rendition.timescale)
    if isinstance(rendition, TextRendition):
        return _vod(times, "{}.vtt", p.target_duration)
    decoded = Fraction(rendition.track.first_dts + rendition.shift, rendition.timescale)
    head = [*_independent(p), *_start(p, rendition, decoded), '#EXT-X-MAP:URI="init.mp4"']
    return _vod(times, "{}.m4s", p.target_duration, head)


def iframe_playlist(p: Presentation, rendition: Rendition) -> str:
    """The I-frame playlist of a video rendition: ``{rendition}/iframes.m3u8``.

    Each EXTINF lasts until the next keyframe (RFC 8216 section 4.3.3.6). Its target duration is its own (section
    6.2.4).
    Raises ``not_found`` where there are no keyframes.
    """
    if not rendition.keyframes:
        raise StreamGateError("not_found", f"{rendition.name} has no keyframes to play alone")
    times = microseconds(rendition.keyframe_times, rendition.timescale)
    return _vod(times, "k{}.m4s", 1, ["#EXT-X-I-FRAMES-ONLY", '#EXT-X-MAP:URI="init.mp4"'])


def ts_playlist(p: Presentation, video: Rendition | None, audio: Rendition | None) -> str:
    """The media playlist of a muxed pair: ``{video}+{audio}/index.m3u8``."""
    head = _independent(p)
    if video:
        first = Fraction(video.decoded, video.timescale)
        if audio:
            first = min(first, Fraction(int(audio.times[0]), audio.timescale))
        head += _start(p, video, first)
    return _vod(p.ts_times(video, audio), "{}.ts", p.target_duration, head)


def _independent(p: Presentation) -> list[str]:
    return ["#EXT-X-INDEPENDENT-SEGMENTS"] if p.independent else []


def _start(p: Presentation, rendition: Rendition, first: Fraction) -> list[str]:
    """Where to begin (RFC 8216 section 4.3.5.2) in a playlist whose earliest time, of decoding too, is ``first`` s.

    If an edit list hides the first pictures: behind them, as trimming does. Else at the first picture. Without PRECISE a
    player shows the whole first segment anyway; but for hls.js and Shaka zero is ``first``, and there is no picture yet:
    hls.js calls that a hole and may step over the first pictures too (docs/adr/0004-start-at-the-first-picture.md).
    """
    if rendition.kind != "video":
        return []
    begin = Fraction(int(rendition.times[0]), rendition.timescale)
    if p.begin - begin >= NOTICEABLE:
        return [f"#EXT-X-START:TIME-OFFSET={float(p.begin - begin):.6f},PRECISE=YES"]
    lead = round((begin - first) * 1_000_000)
    return [f"#EXT-X-START:TIME-OFFSET={lead // 1_000_000}.{lead % 1_000_000:06d}"] if lead > 0 else []


def _vod(times: Sequence[int], uri: str, target: int, head: Sequence[str] = ()) -> str:
    """A complete playlist of segments between ``times`` (µs), of a target duration of at least ``target`` seconds."""
    lasts = [end - start for start, end in pairwise(times)]
    target = max(target, (max(lasts) + 500_000) // 1_000_000)
    before, after = uri.split("{}")
    body = [f"#EXTINF:{d // 1_000_000}.{d % 1_000_000:06d},\n{before}{n}{after}" for n, d in enumerate(lasts)]
    lines = [f"#EXT-X-TARGETDURATION:{target}", "#EXT-X-MEDIA-SEQUENCE:0", "#EXT-X-PLAYLIST-TYPE:VOD", *head]
    needed = version([*lines, body[0]])
    return "\n".join(("#EXTM3U", f"#EXT-X-VERSION:{needed}", *lines, *body, "#EXT-X-ENDLIST", ""))


def multivariant(p: Presentation, *, ts: bool = False, trick_play: bool = True) -> str:
    """The multivariant playlist: ``main.m3u8``, or ``main-ts.m3u8`` with ``ts``; with I-frame playlists for ``trick_play``.

    Every variant is there once for each audio group, the groups being ordered from the most compatible to the least.
    Within a group codecs are ordered alike, and within a codec the variant to begin with comes first, then the others
    by bandwidth.

    Raises ``ts_unavailable`` where MPEG-TS can carry none of the variants.
    """
    lines = _independent(p)
    text = [_text_media(choice) for choice in choices(p.text, "Subtitles")]
    lines += _ts_variants(p) if ts else _variants(p, trick_play)
    at = next(n for n, line in enumerate(lines) if line.startswith("#EXT-X-STREAM-INF"))
    lines[at:at] = text
    return "\n".join(("#EXTM3U", f"#EXT-X-VERSION:{version(lines)}", *lines, ""))


def _variants(p: Presentation, trick_play: bool) -> list[str]:
    groups = audio_groups(p)
    lines = [_audio_media(group, n) for group in groups for n in range(len(group.choices))]
    families = video_families(p)
    # Where no sound is one that every browser plays, the picture alone comes last: better than nothing. It asks for as
    # much bandwidth as with sound, so that it is no cheaper choice for those who can have both.
    silent = all(r.codec.family not in PLAYED_EVERYWHERE for group in groups for r in group.renditions)
    most = (max((g.bandwidth for g in groups), default=0), max((g.average_bandwidth for g in groups), default=0))
    for group in (*groups, None) if silent else groups:
        shared = [("AUDIO", quoted(group.id))] if group else []
        sound = group.codecs if group else []
        peak, mean = (group.bandwidth, group.average_bandwidth) if group else most
        for rungs in families:
            for r in start_first(rungs):
                rates = (r.bandwidth + peak, r.average_bandwidth + mean)
                attributes = [*_stream(rates, [r.codec.string, *sound]), *_picture(r), *shared, *_text_group(p)]
                lines += [f"#EXT-X-STREAM-INF:{_join(attributes)}", f"{r.name}/index.m3u8"]
        if group and not families:
            attributes = [*_stream((peak, mean), sound), *shared, *_text_group(p)]
            lines += [f"#EXT-X-STREAM-INF:{_join(attributes)}", f"{group.default.name}/index.m3u8"]
    for r in (r for rungs in families for r in rungs if trick_play and r.keyframes):
        attributes = [*_stream(r.keyframe_bandwidths, [r.codec.string]), *_picture(r, moving=False)]
        lines.append(f"#EXT-X-I-FRAME-STREAM-INF:{_join(attributes)},URI={quoted(f'{r.name}/iframes.m3u8')}")
    return lines


def _ts_variants(p: Presentation) -> list[str]:
    if not p.ts_variants:
        raise StreamGateError("ts_unavailable", "MPEG-TS carries H.264 with AAC here, and this asset has no such pair")
    made = []
    for folder, (video, audio) in p.ts_variants.items():
        lasts = np.diff(np.array(p.ts_times(video, audio)))
        sizes = p.ts_muxer(video.name if video else None, audio.name if audio else None).sizes()
        peak = bandwidth.peak(sizes, lasts, 1_000_000, p.target_duration)
        rates = (peak, bandwidth.average(sizes, lasts, 1_000_000))
        codecs = [r.codec.string for r in (video, audio) if r]
        attributes = [*_stream(rates, codecs), *(_picture(video) if video else ()), *_text_group(p)]
        made.append((peak, f"#EXT-X-STREAM-INF:{_join(attributes)}", f"{folder}/index.m3u8", video))
    order = [r.name for rungs in video_families(p) for r in start_first(rungs)]
    made.sort(key=lambda m: order.index(m[3].name) if m[3] else 0)
    return [line for m in made for line in m[1:3]]


def _stream(rates: tuple[int, int], codecs: Sequence[str]) -> list[tuple[str, str]]:
    return [
        ("BANDWIDTH", str(rates[0])),
        ("AVERAGE-BANDWIDTH", str(rates[1])),
        ("CODECS", quoted(",".join(dict.fromkeys(codecs)))),
    ]


def _picture(r: Rendition, *, moving: bool = True) -> list[tuple[str, str]]:
    attributes = [("RESOLUTION", f"{r.width}x{r.height}")]
    if moving and r.frame_rate:
        attributes.append(("FRAME-RATE", f"{float(r.frame_rate):.3f}"))
    attributes.append(("VIDEO-RANGE", r.codec.video_range))  # bis, section 4.4.6.2
    return [*attributes, ("CLOSED-CAPTIONS", "NONE")] if moving else attributes


def _text_group(p: Presentation) -> list[tuple[str, str]]:
    return [("SUBTITLES", quoted(SUBTITLES))] if p.text else []


def _audio_media(group: AudioGroup, n: int) -> str:
    r = group.renditions[n]
    channels = [("CHANNELS", quoted(str(r.codec.channels)))] if r.codec.channels else []
    uri = ("URI", quoted(f"{r.name}/index.m3u8"))
    return f"#EXT-X-MEDIA:{_join([*_media('AUDIO', group.id, group.choices[n]), *channels, uri])}"


def _text_media(choice: Choice) -> str:
    forced = [("FORCED", "YES")] if choice.rendition.forced else []
    uri = ("URI", quoted(f"{choice.rendition.name}/index.m3u8"))
    return f"#EXT-X-MEDIA:{_join([*_media('SUBTITLES', SUBTITLES, choice), *forced, uri])}"


def _media(kind: str, group: str, choice: Choice) -> list[tuple[str, str]]:
    language = [("LANGUAGE", quoted(choice.language))] if choice.language else []
    return [
        ("TYPE", kind),
        ("GROUP-ID", quoted(group)),
        ("NAME", quoted(choice.name)),
        *language,
        ("DEFAULT", "YES" if choice.default else "NO"),
        ("AUTOSELECT", "YES" if choice.autoselect else "NO"),
    ]


def _join(attributes: Iterable[tuple[str, str]]) -> str:
    return ",".join(f"{name}={value}" for name, value in attributes)


def quoted(text: str) -> str:
    """``text`` as a quoted-string; what one cannot hold becomes a space or an apostrophe."""
    return f'"{text.translate(_UNQUOTABLE)}"'
