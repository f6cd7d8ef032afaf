"""The players of a browser, by ability; the picture carries its frame number, the languages have tones of their own."""

from __future__ import annotations

import pytest

from tests.media_factory import CUES
from tests.players.abilities import BROWSER, Client
from tests.players.conftest import FPS, SECONDS, Opener

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.slow,
    pytest.mark.players,
    pytest.mark.needs("chromium", "web"),
]

# dash.js looks at the clock, too: where the element is late to tell that it ended, it pauses it and seeks to the end, from where
# Chromium steps back by half a second. What has been played is known for all that.
ENDED = """p => p.video.ended || (p.video.paused && p.video.played.length > 0
    && p.video.played.end(p.video.played.length - 1) >= p.video.duration - 0.05)"""
TONES = {"en": (440, 660), "fr": (660, 440)}  # Hz: what is heard, and what is not


def able(ability: str) -> pytest.MarkDecorator:
    """The clients whose table entry for ``ability`` is yes."""
    clients = [client for client in BROWSER if getattr(client, ability) is True]
    return pytest.mark.parametrize("client", clients, ids=lambda client: client.name)


@able("end")
async def test_plays_to_the_end_with_every_frame(client: Client, open_player: Opener) -> None:
    # One rung: a player that switches decodes the pictures around the switch twice.
    async with open_player(client, "single") as player:
        await player.run("p => p.play()")
        await player.until(ENDED, deadline=3 * SECONDS)
        # Counted are the frames that left the decoder, dropped ones too: a busy machine drops, but it loses none.
        frames = await player.run("p => p.frames()")
        assert frames["corrupted"] == 0
        assert 0 <= frames["total"] - SECONDS * FPS <= client.again
        await player.assert_clean()


@pytest.mark.parametrize("asset", ["single", "muxed"])
@pytest.mark.parametrize(
    "client", [client for client in BROWSER if client.engine == "hls"], ids=lambda client: client.name
)
async def test_hls_js_begins_at_the_first_picture(client: Client, asset: str, open_player: Opener) -> None:
    """Its zero is the first decoding time or sound: it must not find a hole there, at whatever moment it looks."""
    async with open_player(client, asset) as player:
        await player.run("p => p.play()")
        await player.until("p => p.start() !== null")
        start = await player.run("p => p.start()")
        assert start["time"] >= start["buffered"]
        # Of CMAF the picture alone sets its zero, and these have no B-frames.
        assert (start["buffered"] == 0) is (asset == "muxed" and client.manifest == "main.m3u8")
        await player.until("p => p.video.currentTime > 0.3")
        await player.assert_clean()


@able("seek")
async def test_seeks_to_the_exact_picture(client: Client, open_player: Opener) -> None:
    async with open_player(client) as player:
        await player.until("p => p.video.readyState >= 3")  # Shaka seeks to its own start, which would undo ours
        for frame in (100, 30, 180, 51, 2):
            await player.run("(p, t) => p.seek(t)", (frame + 0.5) / FPS + client.offset)
            await player.until("(p, n) => p.video.readyState >= 2 && !p.video.seeking && p.frameNumber() === n", frame)
        await player.run("p => p.play()")
        await player.until("p => p.video.currentTime > 1")
        await player.assert_clean()


@able("rung")
async def test_switches_the_rung(client: Client, open_player: Opener) -> None:
    async with open_player(client, small_buffer=True) as player:
        assert await player.run("p => p.rungs()") == [90, 180, 360]
        await player.until("p => p.video.readyState >= 3")
        await player.run("p => p.play()")
        for rung, height in ((0, 90), (2, 360), (0, 90)):
            await player.run("(p, n) => p.setRung(n)", rung)
            await player.until("(p, h) => { p.repeat(); return p.video.videoHeight === h; }", height)
            # The picture of the new rung is the right one. Sought: a busy machine may pause on a picture that is late.
            await player.run("p => p.video.pause()")
            # Two on: the first picture of a rung is on the screen a moment before its time.
            frame = int((await player.run("p => p.video.currentTime") - client.offset) * FPS) + 2
            frame = max(0, min(frame, SECONDS * FPS - 1))
            await player.run("(p, t) => p.seek(t)", (frame + 0.5) / FPS + client.offset)
            shown = "(p, [h, n]) => !p.video.seeking && p.video.videoHeight === h && p.frameNumber() === n"
            await player.until(shown, [height, frame])
            await player.run("p => p.play()")
        await player.assert_clean()


@able("language")
async def test_switches_the_language(client: Client, open_player: Opener) -> None:
    async with open_player(client) as player:
        await player.until("p => p.video.readyState >= 3")
        await player.run("p => p.play()")
        await player.until("p => p.video.currentTime > 0.2")
        for language in ("fr", "en"):
            heard, silent = TONES[language]
            await player.run("(p, l) => p.setAudio(l)", language)
            await player.run("p => p.seek(0.5)")
            await player.run("p => p.play()")
            await player.until(
                "(p, f) => p.loudness(f[0]) > -50 && p.loudness(f[0]) > p.loudness(f[1]) + 15", (heard, silent)
            )
            assert (await player.run("p => p.audio()")).startswith(language)
        await player.assert_clean()


@able("subtitles")
async def test_shows_subtitles(client: Client, open_player: Opener) -> None:
    async with open_player(client, small_buffer=True) as player:
        await player.until("p => p.video.readyState >= 3")
        for language, name in (("en", "eng"), ("fr", "fra")):
            # As a viewer does, while it plays: dash.js adds cues as time passes, and Shaka with the next video segment.
            await player.run("p => p.seek(0.1)")
            await player.run("p => p.play()")
            await player.run("(p, l) => p.setText(l)", language)
            await player.until("(p, texts) => p.cues().some((text) => texts.includes(text))", CUES[name])
            await player.run("p => p.video.pause()")
            for second in (1, 6, 3, 2, 7):
                await player.run("(p, t) => p.seek(t)", second + 0.5)
                await player.until(
                    "(p, text) => JSON.stringify(p.cues()) === JSON.stringify([text])", CUES[name][second]
                )
                await player.run("(p, t) => p.seek(t)", second + 0.9)
                await player.until("p => p.cues().length === 0")
        await player.run("p => p.setText(null)")
        await player.run("p => p.seek(1.5)")
        assert await player.run("p => p.cues()") == []
        await player.assert_clean()


@able("fast")
async def test_plays_fast(client: Client, open_player: Opener) -> None:
    async with open_player(client) as player:
        await player.until("p => p.video.readyState >= 3")
        await player.run("p => p.play()")
        await player.until("p => p.video.currentTime > 0.2")
        start = await player.run("p => { p.video.playbackRate = 4; return [p.video.currentTime, performance.now()]; }")
        await player.until("p => p.video.ended")
        media, clock = await player.run(
            "(p, s) => [p.video.currentTime - s[0], (performance.now() - s[1]) / 1000]", start
        )
        assert media / clock > 2, (media, clock)
        await player.assert_clean()


@able("iframes")
async def test_fast_forward_on_keyframes(client: Client, open_player: Opener) -> None:
    async with open_player(client, small_buffer=True) as player:
        await player.until("p => p.video.readyState >= 3")
        if client.engine == "hls":
            for second, keyframe in ((5, 100), (1, 0), (7, 150)):
                await player.until("(p, [t, n]) => p.scrub(t) === n", [second, keyframe])
        else:
            await player.run("p => p.play()")
            await player.until("p => p.video.currentTime > 0.2")
            await player.run("p => p.adapter.trickPlay(4)")
            await player.until("p => p.frameNumber() === 150")
            await player.run("p => p.adapter.trickPlay(1)")
        asked = [url.rpartition("/")[2] for url in player.requests]
        assert [name for name in asked if name.startswith("k") and name.endswith(".m4s")], asked
        await player.assert_clean()


@able("end")
async def test_plays_what_it_can_of_mixed_codecs(client: Client, open_player: Opener) -> None:
    """Chromium has neither HEVC nor E-AC-3: each player finds the H.264 and AAC part by itself."""
    async with open_player(client, "mixed") as player:
        await player.until("p => p.video.readyState >= 3")
        await player.run("p => p.play()")
        await player.until("p => p.video.currentTime > 2 && p.frameNumber() > 40")
        await player.assert_clean()
