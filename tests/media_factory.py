"""Media that the tests make for themselves with PyAV: small, quick to encode, and different in every frame."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


@dataclass(frozen=True)
class Video:
    """What a generated video track is like; ``start`` (seconds) is when it begins: MP4 has an empty edit for that."""

    size: tuple[int, int] = (160, 90)
    fps: Fraction = Fraction(25)
    gop: int = 25
    bframes: int = 2
    closed: bool = True
    codec: str = "libx264"
    variable: bool = False
    pixels: str = "yuv420p"
    bitrate: int = 0
    start: Fraction = Fraction(0)
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Audio:
    """What a generated audio track is like; ``start`` is as for video."""

    rate: int = 48000
    layout: str = "stereo"
    codec: str = "aac"
    language: str = "eng"
    pitch: float = 440.0
    bitrate: int = 64000
    format: str = ""
    start: Fraction = Fraction(0)


def _picture(number: int, width: int, height: int) -> np.ndarray:
    """One RGB picture (height, width, 3) that no other frame number has: drifting gradients, and the number in bits."""
    x = np.arange(width, dtype=np.uint16)[None, :]
    y = np.arange(height, dtype=np.uint16)[:, None]
    picture = np.empty((height, width, 3), np.uint8)
    picture[..., 0] = (x + number * 3) & 255
    picture[..., 1] = (y * 2 + number * 5) & 255
    picture[..., 2] = (x + y + number) & 255
    step = width // 16
    for bit in range(16):
        picture[: height // 6, bit * step : (bit + 1) * step] = 235 if number >> bit & 1 else 16
    return picture


def _video_frames(spec: Video, seconds: float) -> Iterator[av.VideoFrame]:
    ticks = 1 / (spec.fps * (2 if spec.variable else 1))
    count = round(seconds * spec.fps)
    position = round(spec.start / ticks)
    for number in range(count):
        frame = av.VideoFrame.from_ndarray(_picture(number, *spec.size), format="rgb24")
        frame.pts, frame.time_base = position, ticks
        position += (2, 1, 3, 2)[number % 4] if spec.variable else 1
        yield frame


def _audio_frames(spec: Audio, seconds: float) -> Iterator[av.AudioFrame]:
    count = int(seconds * spec.rate)
    late = round(spec.start * spec.rate)
    channels = av.AudioLayout(spec.layout).nb_channels
    for start in range(0, count, 1024):
        t = (start + np.arange(min(1024, count - start))) / spec.rate
        wave = 0.3 * np.sin(2 * np.pi * spec.pitch * t[None, :] * (1 + np.arange(channels)[:, None] / 4))
        wave += 0.2 * (np.modf(t)[0] < 0.05)[None, :] * np.sin(2 * np.pi * 1000 * t)[None, :]
        if spec.format == "s16":
            data = np.ascontiguousarray((wave.T * 32767).astype(np.int16).reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(data, format="s16", layout=spec.layout)
        else:
            frame = av.AudioFrame.from_ndarray(wave.astype(np.float32), format="fltp", layout=spec.layout)
        frame.sample_rate, frame.pts, frame.time_base = spec.rate, late + start, Fraction(1, spec.rate)
        yield frame


def _video_stream(output: av.container.OutputContainer, spec: Video) -> av.VideoStream:
    options = dict(spec.options)
    if spec.codec == "libx264":
        flags = "open_gop=0" if spec.closed else "open_gop=1"
        params = (
            f"keyint={spec.gop}:min-keyint={spec.gop if spec.closed else 1}:scenecut=0:bframes={spec.bframes}:{flags}"
        )
        options = {"preset": "ultrafast", "x264-params": params, **options}
    stream = output.add_stream(spec.codec, rate=spec.fps * (2 if spec.variable else 1), options=options)
    assert isinstance(stream, av.VideoStream)
    stream.width, stream.height = spec.size
    stream.pix_fmt = spec.pixels
    stream.codec_context.gop_size = spec.gop
    stream.codec_context.max_b_frames = spec.bframes
    if spec.bitrate:
        stream.bit_rate = spec.bitrate
    if spec.codec.startswith("libx26"):
        stream.codec_context.thread_count = 1
    return stream


@contextlib.contextmanager
def ordinary_scheduling() -> Iterator[None]:
    """SVT-AV1 makes the thread that opens it a real-time one where it may, as root: it, and all that it starts later, would starve the machine."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


@ordinary_scheduling()
def make(
    path: Path,
    video: Video | list[Video] | None = Video(),
    audio: Audio | list[Audio] | None = Audio(),
    *,
    seconds: float = 6.0,
    format: str | None = None,
    flags: str = "+faststart",
    audio_seconds: float | None = None,
    **muxer: str,
) -> Path:
    """Encode a file; ``flags`` are the MP4 muxer's movflags, further keywords its other options.

    Packets are interleaved by time, so that the file looks like one that a real muxer wrote.
    """
    videos = [] if video is None else video if isinstance(video, list) else [video]
    audios = [] if audio is None else audio if isinstance(audio, list) else [audio]
    kind = (
        format
        or {".mp4": "mp4", ".mov": "mov", ".m4a": "mp4", ".mkv": "matroska", ".webm": "webm", ".ts": "mpegts"}[
            path.suffix
        ]
    )
    options = {"movflags": flags, **muxer} if kind in ("mp4", "mov") and flags else dict(muxer)
    with av.open(str(path), "w", format=kind, options=options) as output:
        sources: list[tuple[Callable[[Any], list[av.Packet[Any]]], Iterator[av.VideoFrame | av.AudioFrame]]] = []
        for spec in videos:
            sources.append((_video_stream(output, spec).encode, _video_frames(spec, seconds)))
        for sound in audios:
            stream = output.add_stream(sound.codec, rate=sound.rate, layout=sound.layout)
            assert isinstance(stream, av.AudioStream)
            if sound.bitrate and sound.codec not in ("flac", "pcm_s16le"):
                stream.bit_rate = sound.bitrate
            stream.metadata["language"] = sound.language
            if sound.codec in ("libopus", "flac", "pcm_s16le"):
                sound = Audio(**{**sound.__dict__, "format": "s16"})
                stream.codec_context.format = "s16"
            sources.append(
                (stream.encode, _audio_frames(sound, audio_seconds if audio_seconds is not None else seconds))
            )
        pending: dict[int, av.VideoFrame | av.AudioFrame] = {n: next(frames) for n, (_, frames) in enumerate(sources)}
        while pending:
            n = min(pending, key=lambda k: moment(pending[k]))
            encode, frames = sources[n]
            output.mux(encode(pending[n]))
            following = next(frames, None)
            if following is None:
                del pending[n]
            else:
                pending[n] = following
        for encode, _ in sources:
            output.mux(encode(None))
    return path


def moment(of: av.VideoFrame | av.AudioFrame | av.Packet[Any]) -> Fraction:
    """When a frame or packet is presented, in seconds of its stream's clock."""
    assert of.pts is not None and of.time_base is not None
    return of.pts * of.time_base


CUES = {
    "eng": ["One", "Two & three", "Four <five>", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve"],
    "fra": ["Un", "Deux & trois", "Quatre <cinq>", "Six", "Sept", "Huit", "Neuf", "Dix", "Onze", "Douze"],
}


def write_vtt(path: Path, language: str, seconds: float) -> Path:
    """A cue a second, each shown from n.25 s to n.75 s."""
    lines = ["WEBVTT", ""]
    for n, text in enumerate(CUES[language][: int(seconds)]):
        escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        lines += [f"00:00:{n:02d}.250 --> 00:00:{n:02d}.750", escaped, ""]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def ladder(
    folder: Path,
    *,
    seconds: float = 8,
    rungs: tuple[tuple[int, int, int], ...] = ((160, 90, 60_000), (320, 180, 160_000), (640, 360, 400_000)),
    languages: tuple[str, ...] = ("eng", "fra"),
    subtitles: bool = True,
    title: str = "A ladder",
    gop: int = 50,
) -> Path:
    """An asset folder: one file a rung, one file an audio language, subtitles, and the asset.toml that joins them."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f'title = "{title}"', ""]
    for width, height, bitrate in rungs:
        name = f"v{height}.mp4"
        make(folder / name, Video(size=(width, height), gop=gop, bitrate=bitrate), None, seconds=seconds)
        lines += ["[[source]]", f'file = "{name}"', ""]
    for n, language in enumerate(languages):
        name = f"{language}.m4a"
        make(folder / name, None, Audio(language=language, pitch=440 + 220 * n), seconds=seconds)
        lines += ["[[source]]", f'file = "{name}"', f'language = "{language}"', f"default = {str(n == 0).lower()}", ""]
    for language in languages if subtitles else ():
        write_vtt(folder / f"{language}.vtt", language, seconds)
        lines += ["[[subtitle]]", f'file = "{language}.vtt"', f'language = "{language}"', ""]
    (folder / "asset.toml").write_text("\n".join(lines), encoding="utf-8")
    return folder


def widen(source: Path, target: Path) -> Path:
    """Rewrite a moov-last MP4 so that it uses 64-bit box sizes (mdat) and 64-bit offsets (co64)."""
    data = source.read_bytes()
    boxes = []
    at = 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if size == 1:
            size = struct.unpack_from(">Q", data, at + 8)[0]
        boxes.append((kind, data[at : at + size]))
        at += size
    kinds = [kind for kind, _ in boxes]
    grown = 8 if kinds.index(b"mdat") < kinds.index(b"moov") else None
    if grown is None:
        raise ValueError("widen() wants a file whose moov is last")
    out = bytearray()
    for kind, box in boxes:
        if kind == b"mdat":
            out += struct.pack(">I4sQ", 1, b"mdat", len(box) + 8) + box[8:]
        elif kind == b"moov":
            out += _widen_offsets(box, grown)
        else:
            out += box
    target.write_bytes(out)
    return target


def _widen_offsets(box: bytes, grown: int) -> bytes:
    """The same box with every stco inside made a co64 whose offsets are ``grown`` bytes further on."""
    kind = box[4:8]
    if kind == b"stco":
        count = struct.unpack_from(">I", box, 12)[0]
        offsets = struct.unpack_from(f">{count}I", box, 16)
        return struct.pack(">I4sII", 16 + 8 * count, b"co64", 0, count) + b"".join(
            struct.pack(">Q", o + grown) for o in offsets
        )
    if kind not in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        return box
    body = bytearray()
    at = 8
    while at < len(box):
        size = struct.unpack_from(">I", box, at)[0]
        body += _widen_offsets(box[at : at + size], grown)
        at += size
    return struct.pack(">I4s", len(body) + 8, kind) + bytes(body)
