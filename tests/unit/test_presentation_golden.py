"""What lies below a rendition is immutable: when its bytes change, a format version is raised, and then these digests.

The golden bytes of CMAF segments are with the tests of the kernel.
"""

from __future__ import annotations

from hashlib import blake2b

from streamgate.media import assembly, hls
from streamgate.media.presentation import Presentation, Rendition, TextInput, build
from streamgate.media.subtitles import Cue
from tests.track_factory import audio_track, given, video_track

GOLDEN = {
    ("playlist", 2): "f1dee875654161e9",
    ("text", 1): "900234395b5987f1",
    ("ts", 1): "c30def8b0d2bd137",
}


def presentation() -> Presentation:
    cues = (Cue(500, 4500, "one", "line:0", "a"), Cue(4600, 9000, "<i>two</i>\n&amp; three"))
    text = TextInput(b"text", cues, "en", "", False, False)
    return build([given(video_track()), given(audio_track(600, priming=1024))], [text])


def digest(*parts: bytes) -> str:
    return blake2b(b"".join(parts), digest_size=8).hexdigest()


def nal_units(r: Rendition, first: int, last: int) -> bytes:
    """Payload of samples that are one NAL unit each: an IDR picture where it is a sync sample."""
    keys = set(r.track.keyframes.tolist())
    sizes = r.track.sizes[first:last].tolist()
    return b"".join(
        (size - 4).to_bytes(4, "big") + (b"\x65" if n in keys else b"\x41") + bytes([n % 250 + 1]) * (size - 5)
        for n, size in enumerate(sizes, first)
    )


def test_playlists() -> None:
    p = presentation()
    made = [hls.media_playlist(p, r) for r in p.renditions.values()]
    made += [hls.iframe_playlist(p, p.video[0]), hls.ts_playlist(p, p.video[0], p.audio[0])]
    assert GOLDEN["playlist", assembly.PLAYLIST_FORMAT_VERSION] == digest(*(text.encode() for text in made))


def test_text() -> None:
    (text,) = presentation().text
    made = [text.segment(n) for n in range(text.segments)]
    assert GOLDEN["text", assembly.TEXT_FORMAT_VERSION] == digest(*made, text.whole())


def test_ts() -> None:
    p = presentation()
    (video,), (audio,) = p.video, p.audio
    muxer = p.ts_muxer(video.name, audio.name)
    made = []
    for n in (0, 2, muxer.segments - 1):
        pictures = nal_units(video, *video.aligned[n : n + 2].tolist()) if n < video.segments else b""
        first, last = audio.aligned[n : n + 2].tolist()
        made.append(muxer.segment(n, pictures, bytes(int(audio.track.sizes[first:last].sum()))))
        assert len(made[-1]) == muxer.sizes()[n]
    assert GOLDEN["ts", assembly.TS_FORMAT_VERSION] == digest(*made)
