"""A pleasant clip to show, made from nothing: hills, a sun, a clock, a chord, subtitles.

``python -m streamgate.transcode.clip FOLDER`` writes an asset: ``asset.toml``, three rungs of video on one grid of
closed keyframes, audio in two languages, and subtitles in two. The second hand, the tick of the sound and the burnt-in
clock agree, so that an eye and an ear can judge the synchrony.
"""

from __future__ import annotations

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from streamgate.errors import StreamGateError

FPS = 25
GOP_S = 2
RUNGS = ((640, 360, 28), (960, 540, 22), (1280, 720, 15))  # width, height, x264's crf: apart enough for players to see
SAMPLE_RATE = 48_000
AUDIO_FRAME = 1024  # samples of an AAC frame
CHORDS = {  # frequencies in Hz of the two halves of an eight-second phrase
    "eng": ((220.0, 277.18, 329.63, 440.0), (196.0, 246.94, 293.66, 392.0)),
    "fra": ((174.61, 220.0, 261.63, 349.23), (146.83, 174.61, 220.0, 293.66)),
}
LABELS = {"eng": "English", "fra": "Français"}
LINES = {
    "eng": (
        "Hello.",
        "This clip was made just now.",
        "The clock, the hand and the tick agree.",
        "Try another language.",
    ),
    "fra": (
        "Bonjour.",
        "Ce clip vient d'être créé.",
        "L'horloge et le son sont d'accord.",
        "Essayez une autre langue.",
    ),
}

GLYPHS = {  # 3 x 5 pixels, a row per octal digit
    "0": 0o75557, "1": 0o26227, "2": 0o71747, "3": 0o71717, "4": 0o55711, "5": 0o74717, "6": 0o74757, "7": 0o71122,
    "8": 0o75757, "9": 0o75717, ":": 0o02020, ".": 0o00002, "p": 0o07574, " ": 0,
}  # fmt: skip

Plane = NDArray[np.float32]


def stencil(text: str, scale: int) -> NDArray[np.bool_]:
    """``text`` as a mask of shape (5 * scale, (4 * len(text) - 1) * scale)."""
    rows = np.zeros((5, 4 * len(text)), dtype=bool)
    for i, letter in enumerate(text):
        for y in range(5):
            bits = GLYPHS[letter] >> (3 * (4 - y))
            rows[y, 4 * i : 4 * i + 3] = [bool(bits & 4), bool(bits & 2), bool(bits & 1)]
    return np.kron(rows[:, :-1], np.ones((scale, scale), dtype=bool))


def clock(frame: int) -> str:
    """What the burnt-in clock shows at ``frame``: minutes, seconds, hundredths."""
    seconds, rest = divmod(frame, FPS)
    return f"{seconds // 60:02}:{seconds % 60:02}.{rest * 100 // FPS:02}"


class Painter:
    """Draws the frames of one rung as planar YUV 4:2:0, BT.709 limited range."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.x = np.linspace(0, 16 / 9, width, dtype=np.float32)
        self.y = np.linspace(0, 1, height, dtype=np.float32)
        rows = self.y[:, None]
        self.sky = [np.broadcast_to(p, (height, width)) for p in (70 + 90 * rows, 150 - 30 * rows, 108 + 34 * rows)]

    def frame(self, number: int) -> NDArray[np.uint8]:
        """Frame ``number``: an array of shape (height * 3 / 2, width), the layout of yuv420p."""
        t = number / FPS
        luma, cb, cr = (plane.copy() for plane in self.sky)
        self._disc(luma, cb, cr, 0.35 + 0.025 * t, 0.30 - 0.06 * np.sin(t / 8), 0.085, (226, 64, 160))
        for depth, colour in enumerate(((112, 138, 120), (84, 134, 112), (56, 126, 108))):
            self._hills(luma, cb, cr, t, depth, colour)
        turn = 2 * np.pi * number / (60 * FPS) * 15  # a quarter of a turn a second
        self._disc(luma, cb, cr, 1.52 + 0.10 * np.sin(turn), 0.20 - 0.10 * np.cos(turn), 0.022, (235, 128, 128))
        if number % FPS < 3:  # the flash goes with the tick
            self._disc(luma, cb, cr, 1.52, 0.20, 0.05, (215, 40, 190))
        self._write(luma, cb, cr, clock(number), self.height // 60, (self.height // 24, self.height // 24))
        small = self.height // 120
        self._write(luma, cb, cr, f"{self.height}p", small, (self.height - 9 * small, self.height // 24))
        out = np.empty((self.height * 3 // 2, self.width), dtype=np.uint8)
        out[: self.height] = luma
        quarter = self.height // 4
        for i, plane in enumerate((cb, cr)):
            chroma = plane[::2, ::2].astype(np.uint8)
            out[self.height + i * quarter : self.height + (i + 1) * quarter] = chroma.reshape(quarter, self.width)
        return out

    def _disc(
        self, luma: Plane, cb: Plane, cr: Plane, x: float, y: float, radius: float, colour: tuple[int, int, int]
    ) -> None:
        top, bottom = np.searchsorted(self.y, (y - 1.1 * radius, y + 1.1 * radius))
        left, right = np.searchsorted(self.x, (x - 1.1 * radius, x + 1.1 * radius))
        distance = np.hypot(self.y[top:bottom, None] - y, self.x[None, left:right] - x)
        cover = np.clip((radius - distance) * self.height + 0.5, 0, 1)
        for plane, value in zip((luma, cb, cr), colour, strict=True):
            part = plane[top:bottom, left:right]
            part += cover * (value - part)

    def _hills(self, luma: Plane, cb: Plane, cr: Plane, t: float, depth: int, colour: tuple[int, int, int]) -> None:
        x = self.x * (1.3 + depth) + t * (0.08 + 0.10 * depth) + 7 * depth
        ridge = 0.60 + 0.13 * depth + 0.05 * np.sin(2.1 * x) + 0.025 * np.sin(5.3 * x + 1)
        top = int(ridge.min() * self.height)
        cover = np.clip((self.y[top:, None] - ridge[None, :]) * self.height + 0.5, 0, 1).astype(np.float32)
        for plane, value in zip((luma, cb, cr), colour, strict=True):
            part = plane[top:]
            part += cover * (value - part)

    def _write(self, luma: Plane, cb: Plane, cr: Plane, text: str, scale: int, where: tuple[int, int]) -> None:
        mask = stencil(text, scale)
        top, left = where
        box = (
            slice(top - scale, top + mask.shape[0] + scale),
            slice(left - scale, left + mask.shape[1] + scale),
        )
        luma[box] *= 0.45
        for plane, value in zip((luma, cb, cr), (235, 128, 128), strict=True):
            plane[top : top + mask.shape[0], left : left + mask.shape[1]][mask] = value


def write_video(path: Path, width: int, height: int, crf: int, seconds: int) -> None:
    """One rung: H.264 with B-frames and a closed keyframe every ``GOP_S`` seconds, whatever the size."""
    options = {
        "preset": "veryfast", "crf": str(crf), "profile": "high",
        "x264-params": f"keyint={GOP_S * FPS}:min-keyint={GOP_S * FPS}:scenecut=0:open-gop=0:threads=1",
    }  # fmt: skip
    painter = Painter(width, height)
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as out:
        stream = out.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = Fraction(1, FPS)
        for number in range(seconds * FPS):
            frame = av.VideoFrame.from_ndarray(painter.frame(number), format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def sound(language: str, seconds: int) -> NDArray[np.float32]:
    """A soft chord that changes every four seconds, with a tick at each second: shape (2, samples), -1 to 1."""
    t = np.arange(seconds * SAMPLE_RATE) / SAMPLE_RATE
    out = np.zeros((2, t.size))
    for half, chord in enumerate(CHORDS[language]):
        place = (t - 4 * half) % 8
        envelope = np.where(place < 4, np.minimum(place / 0.3, 1) * np.minimum((4 - place) / 0.6, 1), 0)
        for i, hertz in enumerate(chord):
            tone = 0.07 * envelope * np.sin(2 * np.pi * hertz * t) * (1 + 0.2 * np.sin(2 * np.pi * 0.25 * t + i))
            out += np.outer((1 - 0.2 * i, 0.4 + 0.2 * i), tone)
    since = t % 1
    out += 0.25 * np.exp(-since * 60) * np.sin(2 * np.pi * 1000 * since)
    return out.astype(np.float32)


def write_audio(path: Path, language: str, seconds: int) -> None:
    """One language: AAC-LC, stereo, 48 kHz."""
    wave = sound(language, seconds)
    with av.open(str(path), "w", format="ipod", options={"movflags": "+faststart"}) as out:
        stream = out.add_stream("aac", rate=SAMPLE_RATE, layout="stereo", bit_rate=128_000)
        stream.metadata["language"] = language
        for start in range(0, wave.shape[1], AUDIO_FRAME):
            part = np.ascontiguousarray(wave[:, start : start + AUDIO_FRAME])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def write_subtitles(path: Path, language: str, seconds: int) -> None:
    """WebVTT: a line every three seconds, each shown for two and a half."""
    cues = [
        f"00:{t // 60:02}:{t % 60:02}.000 --> 00:{t // 60:02}:{(t + 2) % 60:02}.500\n{LINES[language][i % 4]}\n"
        for i, t in enumerate(range(0, seconds - 2, 3))
    ]
    path.write_text("WEBVTT\n\n" + "\n".join(cues), encoding="utf-8")


def description() -> str:
    """The clip's ``asset.toml``."""
    lines = ['title = "StreamGate demo"', ""]
    for _, height, _ in reversed(RUNGS):
        lines += ["[[source]]", f'file = "v{height}.mp4"', ""]
    for language, label in LABELS.items():
        default = "true" if language == "eng" else "false"
        lines += ["[[source]]", f'file = "{language}.m4a"', f'language = "{language}"', f'label = "{label}"']
        lines += [f"default = {default}", ""]
    for language, label in LABELS.items():
        lines += ["[[subtitle]]", f'file = "{language}.vtt"', f'language = "{language}"', f'label = "{label}"', ""]
    return "\n".join(lines)


def make_clip(folder: Path, *, seconds: int = 24) -> None:
    """Writes the clip of ``seconds`` (at most 60) into ``folder``, whole or not at all.

    Raises ``output_exists`` where the folder exists, ``output_failed`` where it cannot be written.
    """
    if folder.exists():
        raise StreamGateError("output_exists", f"{folder} exists")
    aside = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    try:
        aside.mkdir(parents=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # largest first; drawing and encoding release the GIL
            jobs = [
                pool.submit(write_video, aside / f"v{height}.mp4", width, height, crf, seconds)
                for width, height, crf in reversed(RUNGS)
            ]
            jobs += [pool.submit(write_audio, aside / f"{lang}.m4a", lang, seconds) for lang in LABELS]
            for job in jobs:
                job.result()
        for language in LABELS:
            write_subtitles(aside / f"{language}.vtt", language, seconds)
        (aside / "asset.toml").write_text(description(), encoding="utf-8")
        aside.rename(folder)
    except (OSError, av.FFmpegError) as error:
        raise StreamGateError("output_failed", f"the clip cannot be written: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


if __name__ == "__main__":
    make_clip(Path(sys.argv[1]))
