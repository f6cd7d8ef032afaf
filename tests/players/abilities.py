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


NATIVE_RUNG = "Chromium's own HLS chooses the rung by itself and has no API for it"
NATIVE_AUDIO = "Chromium hides HTMLMediaElement.audioTracks behind a flag"
NATIVE_TEXT = "Chromium's own HLS reads no subtitle group"
NATIVE_IFRAMES = "Chromium's own HLS reads no EXT-X-I-FRAME-STREAM-INF"
TS_LANGUAGE = "main-ts.m3u8 muxes the default language into each variant, as old players want it"
DASHJS_IFRAMES = "dash.js drops adaptation sets with the trick-mode property"
SHAKA_TS_IFRAMES = "main-ts.m3u8 lists no I-frame playlists: they are fMP4, and the flavour is for players without it"
NO_CONTROLS = "a program for the command line without controls while it plays"
DOWNLOADER = "streamlink writes the stream into a file; the player behind it seeks and speeds up"

BROWSER = (
    Client("hls.js", "hls", "main.m3u8"),
    Client("hls.js TS", "hls", "main-ts.m3u8", language=TS_LANGUAGE, iframes=SHAKA_TS_IFRAMES),
    Client("dash.js", "dash", "main.mpd", iframes=DASHJS_IFRAMES),
    Client("Shaka HLS", "shaka-hls", "main.m3u8"),
    Client("Shaka DASH", "shaka-dash", "main.mpd"),
    Client(
        "Chromium HLS", "native", "main.m3u8",
        rung=NATIVE_RUNG, language=NATIVE_AUDIO, subtitles=NATIVE_TEXT, iframes=NATIVE_IFRAMES,
    ),
)  # fmt: skip

# Patterns of what a player reports as not fatal, each with the reason why it is all right.
ALLOWED_WARNINGS: dict[str, str] = {}
# Patterns of the browser's console.
ALLOWED_CONSOLE: dict[str, str] = {
    r"\[CapabilitiesFilter\] removed AdaptationSet .* unsupported EssentialProperty": (
        "dash.js says that it leaves the trick-mode set alone, which is what DASH-IF IOP 3.2.9 asks of a player that cannot use it"
    ),
}
