"""What each player can do with our streams: the table that the tests go through.

``True`` is held to be true by a test. A string is a "no" and says why; it is about the player, never about the stream.
"""

from __future__ import annotations

from dataclasses import dataclass

ABILITIES = ("end", "seek", "rung", "language", "subtitles", "fast", "iframes")
Ability = bool | str


@dataclass(frozen=True)
class Client:
    """A player, and the manifest that it is given."""

    name: str
    engine: str  # of the page's players; a program's name otherwise
    manifest: str  # main.m3u8, main-ts.m3u8 or main.mpd
    # Seconds from the player's zero to the first picture. hls.js and Shaka put the HLS clock's zero where the first sample is
    # *decoded*; the picture is shown its reordering delay later. Players of DASH are told (presentationTimeOffset).
    offset: float = 0.0
    end: Ability = True
    seek: Ability = True
    rung: Ability = True
    language: Ability = True
    subtitles: Ability = True
    fast: Ability = True
    iframes: Ability = True

    @property
    def protocol(self) -> str:
        return "dash" if self.manifest.endswith(".mpd") else "hls"


REORDERING = 0.08  # s: two frames at 25 fps, the clips' B-frame delay
NATIVE_RUNG = "Chromium's own HLS chooses the rung by itself and has no API for it"
NATIVE_AUDIO = "Chromium hides HTMLMediaElement.audioTracks behind a flag"
NATIVE_TEXT = "Chromium's own HLS reads no subtitle group"
NATIVE_IFRAMES = "Chromium's own HLS reads no EXT-X-I-FRAME-STREAM-INF"
TS_LANGUAGE = "main-ts.m3u8 muxes the default language into each variant, as old players want it"
DASHJS_IFRAMES = "dash.js drops adaptation sets with the trick-mode property"
TS_IFRAMES = "main-ts.m3u8 lists no I-frame playlists: they are fMP4, and the flavour is for players without it"
FFMPEG_SEEK = (
    "after a seek in HLS ffmpeg 5.1 takes fMP4's samples from wrong places (Invalid NAL unit size) and shows no picture, "
    "of HLS that it packaged itself as well: test_programs shows that"
)
FFMPEG_FAST = "ffmpeg decodes as fast as it can and has no speed of playing"
FFMPEG_TEXT = "ffmpeg's HLS demuxer has no WebVTT"
GST_CONTROLS = (
    "gst-launch has no controls: no seek, no choice of rung or track, no rate. A program of GStreamer's library has them, but "
    "its Python bindings (python3-gi) are no dependency of the tests"
)
STREAMLINK_FAST = "streamlink writes the stream into a file; the player behind it has the speed"
STREAMLINK_SEEK = "streamlink starts in the middle of HLS only"
STREAMLINK_LANGUAGE = "streamlink picks the language of HLS only; of DASH it takes the system's"
STREAMLINK_TEXT = "streamlink takes subtitles from its plugins for web sites only, not out of a manifest"
STREAMLINK_IFRAMES = "streamlink reads no I-frame playlists and no trick-mode sets"

BROWSER = (
    Client("hls.js", "hls", "main.m3u8", offset=REORDERING),
    Client("hls.js TS", "hls", "main-ts.m3u8", offset=REORDERING, language=TS_LANGUAGE, iframes=TS_IFRAMES),
    Client("dash.js", "dash", "main.mpd", iframes=DASHJS_IFRAMES),
    Client("Shaka HLS", "shaka-hls", "main.m3u8", offset=REORDERING),
    Client("Shaka DASH", "shaka-dash", "main.mpd"),
    Client(
        "Chromium HLS", "native", "main.m3u8",
        rung=NATIVE_RUNG, language=NATIVE_AUDIO, subtitles=NATIVE_TEXT, iframes=NATIVE_IFRAMES,
    ),
)  # fmt: skip

PROGRAMS = (
    Client("ffmpeg HLS", "ffmpeg", "main.m3u8", seek=FFMPEG_SEEK, subtitles=FFMPEG_TEXT, fast=FFMPEG_FAST),
    Client(
        "ffmpeg TS", "ffmpeg", "main-ts.m3u8",
        language=TS_LANGUAGE, subtitles=FFMPEG_TEXT, fast=FFMPEG_FAST, iframes=TS_IFRAMES,
    ),
    Client("ffmpeg DASH", "ffmpeg", "main.mpd", fast=FFMPEG_FAST),
    *(
        Client(
            f"GStreamer {name}", "gstreamer", manifest,
            seek=GST_CONTROLS, rung=GST_CONTROLS, language=GST_CONTROLS, fast=GST_CONTROLS, iframes=GST_CONTROLS,
        )
        for name, manifest in (("HLS", "main.m3u8"), ("TS", "main-ts.m3u8"), ("DASH", "main.mpd"))
    ),
    Client("streamlink HLS", "streamlink", "main.m3u8", subtitles=STREAMLINK_TEXT, fast=STREAMLINK_FAST, iframes=STREAMLINK_IFRAMES),
    Client(
        "streamlink TS", "streamlink", "main-ts.m3u8",
        language=TS_LANGUAGE, subtitles=STREAMLINK_TEXT, fast=STREAMLINK_FAST, iframes=STREAMLINK_IFRAMES,
    ),
    Client(
        "streamlink DASH", "streamlink", "main.mpd",
        seek=STREAMLINK_SEEK, language=STREAMLINK_LANGUAGE, subtitles=STREAMLINK_TEXT, fast=STREAMLINK_FAST,
        iframes=STREAMLINK_IFRAMES,
    ),
)  # fmt: skip

# Patterns of what a player reports as not fatal, each with the reason why it is all right.
ALLOWED_WARNINGS = {
    r"^bufferSeekOverHole: fragment loaded with buffer holes, seeking from 0 to 0\.081$": (
        "hls.js puts zero where fMP4's first sample is decoded, two frames before the first picture (B-frames), and says that it "
        "steps over these 0.08 s when it is started before anything is loaded. No picture is lost; of TS it must not say it once it has loaded"
    ),
    r"^bufferStalledError: .*\(\{\"len\":\d\d\.": (
        "hls.js says that the picture stood still with 10 s and more buffered ahead: a busy machine decodes too late. Only long real "
        "footage buffers that much; where the stream were at fault, it would not go on"
    ),
    r"^aborted: Aborted$": "hls.js reports loads that it cancels itself, here those of the subtitles that were switched off",
}
# Patterns of the browser's console.
ALLOWED_CONSOLE = {
    r"\[CapabilitiesFilter\] Codec (video/mp4;codecs=\"hvc1|audio/mp4;codecs=\"ec-3).* not supported\.": (
        "dash.js says which codecs the browser has not: Debian's Chromium has neither HEVC nor E-AC-3"
    ),
    r"\[CapabilitiesFilter\] AdaptationSet .* removed because of no supported Representation": "and which sets are empty without them",
    r"\[CapabilitiesFilter\] removed AdaptationSet .* unsupported EssentialProperty": (
        "dash.js says that it leaves the trick-mode set alone, which is what DASH-IF IOP 3.2.9 asks of a player that cannot use it"
    ),
}
