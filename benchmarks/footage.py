"""Titles of 10 min, 60 min and 2 h for the benchmarks, made once and kept outside the repository.

``python -m benchmarks.footage [--input FILE] [--minutes N …]`` prints their paths.
A third of a minute of picture and sound is encoded (or given), and repeated without encoding it again.
"""

from __future__ import annotations

import os
from fractions import Fraction
from hashlib import blake2b
from pathlib import Path

import av
import click
import numpy as np

LENGTHS = (10, 60, 120)
_SECONDS = 20
_SIZE = (1920, 1080)
_RATE = 30


def cache() -> Path:
    """The folder that keeps them: ``$XDG_CACHE_HOME/streamgate/footage``."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "streamgate" / "footage"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def title(minutes: int, given: Path | None = None) -> Path:
    """A faststarted MP4 of ``minutes``: generated footage, or that of ``given``, repeated."""
    base = given or _generated()
    status = base.stat()
    mark = blake2b(f"{base.resolve()} {status.st_size} {status.st_mtime_ns}".encode(), digest_size=4).hexdigest()
    path = cache() / f"title-{minutes}min-{mark if given else 'generated'}.mp4"
    if not path.exists():
        aside = path.with_suffix(".part")
        _repeat(base, aside, minutes * 60)
        aside.rename(path)
    return path


def _generated() -> Path:
    """20 s of 1080p30 H.264 at about 4.5 Mbit/s with stereo AAC."""
    path = cache() / "generated.mp4"
    if path.exists():
        return path
    aside = path.with_suffix(".part")
    noise = np.random.default_rng(1).integers(0, 40, (_SIZE[1], _SIZE[0], 3), dtype=np.uint8)
    ramp = np.arange(_SIZE[0], dtype=np.uint16)[None, :, None] // 10
    with av.open(str(aside), "w", format="mp4", options={"movflags": "+faststart"}) as output:
        params = "keyint=60:min-keyint=60:scenecut=0:open_gop=0:vbv-maxrate=6000:vbv-bufsize=9000"
        video = output.add_stream("libx264", rate=_RATE, options={"preset": "ultrafast", "x264-params": params})
        video.width, video.height, video.pix_fmt, video.bit_rate = *_SIZE, "yuv420p", 4_500_000
        audio = output.add_stream("aac", rate=48000, layout="stereo")
        audio.bit_rate = 128_000
        sound = 0
        for n in range(_SECONDS * _RATE):
            picture = (np.roll(noise, (n * 7, n * 13), (0, 1)) + ramp + n).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, _RATE)
            output.mux(video.encode(frame))
            while sound * _RATE < (n + 1) * 48000:
                t = (sound + np.arange(1024)) / 48000
                wave = np.stack([np.sin(2 * np.pi * 330 * t), np.sin(2 * np.pi * 440 * t)]).astype(np.float32) * 0.3
                samples = av.AudioFrame.from_ndarray(wave, format="fltp", layout="stereo")
                samples.sample_rate, samples.pts, samples.time_base = 48000, sound, Fraction(1, 48000)
                output.mux(audio.encode(samples))
                sound += 1024
        output.mux(video.encode(None))
        output.mux(audio.encode(None))
    aside.rename(path)
    return path


def _repeat(source: Path, target: Path, seconds: int) -> None:
    """Write ``source`` as many times as ``seconds`` take, each time later by its own length."""
    with av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}) as output:
        streams: dict[int, av.stream.Stream] = {}
        offset = Fraction(0)
        sound = 0
        while offset < seconds:
            with av.open(str(source)) as piece:
                chosen = [*piece.streams.video[:1], *piece.streams.audio[:1]]
                for stream in chosen:
                    if stream.index not in streams:
                        streams[stream.index] = output.add_stream_from_template(stream)
                # Whole video frames, so that the grid of frames goes on.
                video = chosen[0]
                if not isinstance(video, av.VideoStream) or not video.average_rate:
                    raise click.ClickException(f"{source} has no video of a known frame rate")
                end = offset + Fraction(video.frames) / video.average_rate
                for packet in piece.demux(*chosen):
                    if packet.dts is None or packet.pts is None:
                        continue
                    if packet.stream is video:
                        shift = round(offset / packet.time_base)
                        packet.dts += shift
                        packet.pts += shift
                    else:
                        # The sound goes on without a gap; what the last repetition has too much is left out.
                        if sound * packet.time_base >= end:
                            continue
                        packet.dts = packet.pts = sound
                        sound += packet.duration or 0
                    packet.stream = streams[packet.stream.index]
                    output.mux(packet)
                offset = end


@click.command()
@click.option("--input", "given", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--minutes", type=click.IntRange(1, 600), multiple=True, default=LENGTHS, show_default=True)
def main(given: Path | None, minutes: tuple[int, ...]) -> None:
    """Make the titles and print their paths."""
    for length in minutes:
        click.echo(title(length, given))


if __name__ == "__main__":
    main()
