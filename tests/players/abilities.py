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
    # Seconds from the player's zero to the first picture. hls.js, Shaka and GStreamer put the HLS clock's zero where the first
    # sample is *decoded*; the picture is shown its reordering delay later. Players of DASH are told (presentationTimeOffset).
    offset: float = 0.0
    again: int = 0  # frames that it may decode twice, because it begins with a seek
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


PREROLL = 4  # frames that Chromium decodes ahead before it plays (media::limits::kMaxVideoFrames)
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
GST_IFRAMES = "GStreamer's demuxers read no I-frame playlists and no trick-mode sets"
GST_FAST = (
    "gst-play makes its rate higher by a tenth a key, each with a seek; GStreamer's own API is out of the tests' reach"
)
GST_DASH_SEEK = (
    "GStreamer 1.22's dashdemux2 has unsigned positions, and the sound's first segment begins before presentationTimeOffset (its "
    "priming): a seek to 4.02 s of these clips goes to hour 364635 of the sound and hangs. Elsewhere it lands on the exact picture"
)
GST_DASH_RUNG = "GStreamer begins DASH with the lowest rung and then goes by what it measures"
STREAMLINK_FAST = "streamlink writes the stream into a file; the player behind it has the speed"
STREAMLINK_SEEK = "streamlink starts in the middle of HLS only"
STREAMLINK_LANGUAGE = "streamlink picks the language of HLS only; of DASH it takes the system's"
STREAMLINK_TEXT = "streamlink takes subtitles from its plugins for web sites only, not out of a manifest"
STREAMLINK_IFRAMES = "streamlink reads no I-frame playlists and no trick-mode sets"

BROWSER = (
    Client("hls.js", "hls", "main.m3u8", offset=REORDERING, again=PREROLL),
    Client("hls.js TS", "hls", "main-ts.m3u8", offset=REORDERING, again=PREROLL, language=TS_LANGUAGE, iframes=TS_IFRAMES),
    Client("dash.js", "dash", "main.mpd", iframes=DASHJS_IFRAMES),
    Client("Shaka HLS", "shaka-hls", "main.m3u8", offset=REORDERING, again=PREROLL),
    Client("Shaka DASH", "shaka-dash", "main.mpd", again=PREROLL),
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
    Client("GStreamer HLS", "gstreamer", "main.m3u8", offset=REORDERING, fast=GST_FAST, iframes=GST_IFRAMES),
    Client(
        "GStreamer TS", "gstreamer", "main-ts.m3u8", offset=REORDERING,
        language=TS_LANGUAGE, fast=GST_FAST, iframes=TS_IFRAMES,
    ),
    Client(
        "GStreamer DASH", "gstreamer", "main.mpd",
        seek=GST_DASH_SEEK, rung=GST_DASH_RUNG, fast=GST_FAST, iframes=GST_IFRAMES,
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
    r"^bufferStalledError: .*\(\{\"len\":\d\d\.": (
        "Chromium's decoder came too late on a busy machine. Seen of bbb-1604k.mp4 at a load of 10 on two cores, at the lowest "
        "priority: `waiting` with readyState 2, 55 s buffered in one piece, 8 of 160 pictures dropped; hls.js reported it after 97 ms, "
        "and 10 ms later it played. Not seen in 2 runs at normal priority. Only with 10 s and more ahead, and it must have gone on (assert_clean)"
    ),
    r"^aborted: Aborted$": "hls.js reports loads that it cancels itself, here those of the subtitles that were switched off",
}
# The same, only while more wants to run than the machine has cores (the load of the last minute).
ALLOWED_WHEN_BUSY = {
    r"^bufferStalledError: ": (
        "the decoder or the loading comes too late, whatever is buffered: at a load of 18 on two cores real footage stood still with 4, "
        "3, 1 and 0 s ahead, and 127 of 439 pictures were dropped. It must have gone on (assert_clean)"
    ),
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
