"""The DASH MPD: ISO/IEC 23009-1:2022, profiles isoff-live and CMAF, with hints of the DASH-IF guidelines."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, lcm

import numpy as np

from streamgate.media import languages
from streamgate.media.codecs import Codec
from streamgate.media.presentation import Presentation
from streamgate.media.renditions import Rendition, TextRendition
from streamgate.media.timeline import Ints
from streamgate.media.variants import audio_groups, choices, video_families

ISOFF_LIVE = "urn:mpeg:dash:profile:isoff-live:2011"
CMAF = "urn:mpeg:dash:profile:cmaf:2019"
TRICK_MODE = "http://dashif.org/guidelines/trickmode"
ROLE = "urn:mpeg:dash:role:2011"
CICP = "urn:mpeg:mpegB:cicp:"
DOLBY_CHANNELS = "tag:dolby.com,2014:dash:audio_channel_configuration:2011"
# ISO/IEC 23091-2: transfer characteristics; BT.2100 has both with the primaries and the matrix of BT.2020 (9, 9).
TRANSFER = {"PQ": 16, "HLG": 18}
# ISO/IEC 23091-3 ChannelConfiguration by number of channels; AAC's eight are its own layout 7, others put them around
# (12).
CHANNELS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 11, 8: 12}
# ETSI TS 102 366 table E.1.6 (custom channel map) by acmod; the low frequency channel adds 1.
ACMOD_CHANNELS = (0xA000, 0x4000, 0xA000, 0xE000, 0xA100, 0xE100, 0xB800, 0xF800)
MAX_TIMESCALE = (1 << 32) - 1

_ESCAPES = dict.fromkeys(range(0x20), " ") | {0x26: "&amp;", 0x3C: "&lt;", 0x3E: "&gt;", 0x22: "&quot;"}
_ESCAPES |= dict.fromkeys((*range(0xD800, 0xE000), 0xFFFE, 0xFFFF), "\ufffd")  # what XML cannot hold


def mpd(p: Presentation, *, trick_play: bool = True) -> str:
    """The MPD of the whole presentation: ``main.mpd``; with sets of keyframes alone for ``trick_play``."""
    sets = _video_sets(p) + _audio_sets(p) + _text_sets(p)
    if trick_play:
        sets += _trick_sets(p)
    profiles = f"{ISOFF_LIVE},{CMAF}" if p.independent else ISOFF_LIVE
    return "\n".join(
        (
            '<?xml version="1.0" encoding="UTF-8"?>',
            f'<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="{profiles}" type="static"'
            f' mediaPresentationDuration="{duration(p.duration)}" maxSegmentDuration="PT{p.target_duration}S"'
            f' minBufferTime="{_buffer_time(p)}">',
            '<Period id="0" start="PT0S">',
            *(
                f'<AdaptationSet id="{n}" {attributes}>\n{body}\n</AdaptationSet>'
                for n, (attributes, body) in enumerate(sets)
            ),
            "</Period>",
            "</MPD>",
            "",
        )
    )


AdaptationSet = tuple[str, str]  # its attributes but @id, and its children


def _video_sets(p: Presentation) -> list[AdaptationSet]:
    sets = []
    for rungs in video_families(p):
        templates = [
            _template(p, r, r.times, "$RepresentationID$/init.mp4", "$RepresentationID$/$Number$.m4s") for r in rungs
        ]
        shared = len(set(templates)) == 1
        lines = [_role("main")]
        if shared:
            lines.append(templates[0])
        for r, template in zip(rungs, templates, strict=True):
            lines.append(
                _representation(r.name, _video_attributes(r, r.bandwidth, r.frame_rate), [] if shared else [template])
            )
        sap = 1 if p.independent else 3
        sets.append((_video_set(rungs, sap, aligned=True), "\n".join([*_dynamic_range(rungs[0].codec), *lines])))
    return sets


def _video_set(rungs: Sequence[Rendition], sap: int, *, aligned: bool) -> str:
    aspects = {Fraction(r.width, r.height) for r in rungs if r.height}
    par = f' par="{_ratio(aspects.pop())}"' if len(aspects) == 1 else ""
    alignment = ' segmentAlignment="true"' if aligned else ""
    return f'contentType="video" mimeType="video/mp4"{alignment} startWithSAP="{sap}"{par}'


def _video_attributes(r: Rendition, rate: int, pictures: Fraction | None) -> str:
    horizontal, vertical = r.sample_aspect
    turned = (r.codec.height, r.codec.width) if r.rotated else (r.codec.width, r.codec.height)
    frames = f' frameRate="{_fraction(pictures)}"' if pictures else ""
    sar = _ratio(Fraction(horizontal, vertical))
    return f'codecs="{r.codec.string}" bandwidth="{rate}" width="{turned[0]}" height="{turned[1]}" sar="{sar}"{frames}'


def _dynamic_range(codec: Codec) -> list[str]:
    """Players that do not know PQ must leave it alone; HLG looks acceptable to those that do not know it."""
    if codec.video_range not in TRANSFER:
        return []
    element = "EssentialProperty" if codec.video_range == "PQ" else "SupplementalProperty"
    values = {"ColourPrimaries": 9, "TransferCharacteristics": TRANSFER[codec.video_range], "MatrixCoefficients": 9}
    return [f'<{element} schemeIdUri="{CICP}{name}" value="{value}"/>' for name, value in values.items()]


def _audio_sets(p: Presentation) -> list[AdaptationSet]:
    """A set for each audio: two of one codec and language may be two versions of the sound as well as two contents."""
    sets = []
    listed: set[str] = set()
    for group in audio_groups(p):
        for r, choice in zip(group.renditions, group.choices, strict=True):
            if r.name in listed:  # it stands in for a language that this group lacks
                continue
            listed.add(r.name)
            rate = f' audioSamplingRate="{r.codec.sample_rate}"' if r.codec.sample_rate else ""
            attributes = 'contentType="audio" mimeType="audio/mp4" segmentAlignment="true" startWithSAP="1"'
            template = _template(p, r, r.times, "$RepresentationID$/init.mp4", "$RepresentationID$/$Number$.m4s")
            body = [
                *_channels(r.codec),
                _label(r.label.strip() or choice.name),
                _role("main" if choice.default else "alternate"),
                template,
            ]
            body.append(_representation(r.name, f'codecs="{r.codec.string}" bandwidth="{r.bandwidth}"{rate}', []))
            sets.append((attributes + _lang(r.language), "\n".join(body)))
    return sets


def _channels(codec: Codec) -> list[str]:
    scheme, value = f"{CICP}ChannelConfiguration", ""
    if codec.family == "eac3" and len(codec.config) >= 4:
        # EC3SpecificBox (ETSI TS 102 366 section F.6): acmod and lfeon of the first independent substream.
        acmod, lfe = codec.config[3] >> 1 & 7, codec.config[3] & 1
        scheme, value = DOLBY_CHANNELS, f"{ACMOD_CHANNELS[acmod] + lfe:04X}"
    elif codec.channels == 8 and codec.family == "aac":
        value = "7"
    elif codec.channels in CHANNELS:
        value = str(CHANNELS[codec.channels])
    return [f'<AudioChannelConfiguration schemeIdUri="{scheme}" value="{value}"/>'] if value else []


def _text_sets(p: Presentation) -> list[AdaptationSet]:
    sets = []
    for choice in choices(p.text, "Subtitles"):
        r = choice.rendition
        assert isinstance(r, TextRendition)
        base = [f"<BaseURL>{r.name}/all.vtt</BaseURL>"]
        body = [
            _label(r.label.strip() or choice.name),
            _role("forced-subtitle" if r.forced else "subtitle"),
            *([_role("main")] if r.default else ()),
            _representation(r.name, f'bandwidth="{r.bandwidth}"', base),
        ]
        sets.append((f'contentType="text" mimeType="text/vtt"{_lang(r.language)}', "\n".join(body)))
    return sets


def _trick_sets(p: Presentation) -> list[AdaptationSet]:
    """Keyframes alone, for each set of rungs (DASH-IF IOP, trick modes); those come first, so their @id is known."""
    sets = []
    for main, rungs in enumerate(video_families(p)):
        rungs = [r for r in rungs if r.keyframes]
        if not rungs:
            continue
        lines = [f'<EssentialProperty schemeIdUri="{TRICK_MODE}" value="{main}"/>', *_dynamic_range(rungs[0].codec)]
        rates = []
        for r in rungs:
            template = _template(p, r, r.keyframe_times, f"{r.name}/init.mp4", f"{r.name}/k$Number$.m4s")
            every = Fraction(int(r.keyframe_times[-1] - r.keyframe_times[0]), r.timescale * r.keyframes)
            rates.append(max(1, int(every * (r.frame_rate or 1))))
            attributes = _video_attributes(r, r.keyframe_bandwidths[0], (1 / every).limit_denominator(1001))
            lines.append(_representation(f"{r.name}-k", f'{attributes} codingDependency="false"', [template]))
        shared = len({(r.timescale, r.keyframe_times[:-1].tobytes()) for r in rungs}) == 1
        attributes = _video_set(rungs, 1, aligned=shared)
        sets.append((f'{attributes} maxPlayoutRate="{min(rates)}"', "\n".join(lines)))
    return sets


def _template(p: Presentation, r: Rendition, times: Ints, initialization: str, media: str) -> str:
    """SegmentTemplate with SegmentTimeline (sections 5.3.9.4 and 5.3.9.6).

    presentationTimeOffset is an integer: where ``zero`` is none in the track's timescale, a multiple of that is used.
    """
    finer = lcm(r.timescale, p.zero.denominator)
    timescale = finer if finer <= MAX_TIMESCALE else r.timescale
    factor = timescale // r.timescale
    lasts = np.diff(times)
    firsts = np.flatnonzero(np.diff(lasts, prepend=-1))
    repeats = np.diff(firsts, append=len(lasts)) - 1
    runs = zip((lasts[firsts] * factor).tolist(), repeats.tolist(), strict=True)
    lines = [f'<S d="{d}" r="{again}"/>' if again else f'<S d="{d}"/>' for d, again in runs]
    lines[0] = f'<S t="{int(times[0]) * factor}"' + lines[0].removeprefix("<S")
    return "\n".join(
        (
            f'<SegmentTemplate timescale="{timescale}" presentationTimeOffset="{int(p.zero * timescale)}"'
            ' startNumber="0"'
            f' initialization="{initialization}" media="{media}">',
            "<SegmentTimeline>",
            *lines,
            "</SegmentTimeline>",
            "</SegmentTemplate>",
        )
    )


def _representation(name: str, attributes: str, children: Sequence[str]) -> str:
    head = f'<Representation id="{name}" {attributes}'
    return "\n".join((f"{head}>", *children, "</Representation>")) if children else f"{head}/>"


def _role(value: str) -> str:
    return f'<Role schemeIdUri="{ROLE}" value="{value}"/>'


def _label(text: str) -> str:
    return f"<Label>{escape(text)}</Label>"


def _lang(language: str) -> str:
    tag = languages.bcp47(language)
    return f' lang="{tag}"' if tag else ""


def _ratio(value: Fraction) -> str:
    return f"{value.numerator}:{value.denominator}"


def _fraction(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{value.numerator}/{value.denominator}"


def _buffer_time(p: Presentation) -> str:
    """What minBufferTime promises, and no more: players wait for so much before they start."""
    # Frames of audio are all alike: what suffices for the video suffices for them.
    return duration(Fraction(ceil(10 * max(r.buffer_time for r in p.video or p.audio)), 10))


def duration(value: Fraction) -> str:
    """Seconds as an xs:duration: exact where a billionth of a second is fine enough, else rounded to one."""
    whole, fraction = divmod(round(value * 1_000_000_000), 1_000_000_000)
    return f"PT{whole}" + (f".{fraction:09d}".rstrip("0") if fraction else "") + "S"


def escape(text: str) -> str:
    """``text`` for element content or a quoted attribute of XML 1.0."""
    return text.translate(_ESCAPES)
