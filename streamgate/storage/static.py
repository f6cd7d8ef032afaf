"""A presentation as static files, under the same names that the edge gives them, for any web server."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from streamgate.errors import StreamGateError
from streamgate.media import dash, hls
from streamgate.media.presentation import Presentation, Rendition
from streamgate.native.gather import Plan
from streamgate.storage.assets import Asset


def write(
    asset: Asset, folder: Path, *, ts: bool = False, progress: Callable[[int, int], None] | None = None
) -> int:
    """Write HLS and DASH of ``asset`` into ``folder``, new or empty; returns the number of bytes written.

    Playlists come last, so that whoever finds one finds all it names.
    ``progress`` is called with (segments done, segments in all).
    Raises :class:`StreamGateError` ``output_exists``, ``output_failed`` or ``source_*``.
    """
    made = asset.presentation
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise StreamGateError("output_exists", f"{folder} is not empty")
        for name in made.renditions:
            (folder / name).mkdir()
        written = _segments(asset, folder, progress)
        if ts:
            written += _ts(asset, folder)
        return written + _playlists(made, folder, ts)
    except OSError as e:
        raise StreamGateError("output_failed", f"{folder}: {os.strerror(e.errno or errno.EIO)}") from e


def _segments(asset: Asset, folder: Path, progress: Callable[[int, int], None] | None) -> int:
    renditions: list[Rendition] = [*asset.presentation.video, *asset.presentation.audio]
    written = 0
    for rendition in renditions:
        written += _put(folder / rendition.name / "init.mp4", rendition.init())
    last = max(r.segments for r in renditions)
    # Segment by segment over all renditions, so that the source is read from front to end.
    for n in range(last):
        for rendition in renditions:
            if n >= rendition.segments:
                continue
            fd = asset.sources[rendition.source].fd
            path = f"{folder}/{rendition.name}/"
            written += _cut(f"{path}{n}.m4s", rendition.segment(n), fd)
            first, end = np.searchsorted(rendition.keyframe_samples, rendition.starts[n : n + 2])
            for k in range(first, end):
                written += _cut(f"{path}k{k}.m4s", rendition.keyframe(k), fd)
        if progress is not None:
            progress(n + 1, last)
    return written


def _cut(path: str, plan: Plan, source: int) -> int:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        return plan.write_from_fd(fd, source)
    finally:
        os.close(fd)


def _put(path: Path, data: bytes | str) -> int:
    body = data.encode() if isinstance(data, str) else data
    path.write_bytes(body)
    return len(body)


def _ts(asset: Asset, folder: Path) -> int:
    made = asset.presentation
    written = 0
    for name, (video, audio) in made.ts_variants.items():
        out = folder / name
        out.mkdir()
        muxer = made.ts_muxer(*name.split("+"))
        for n in range(muxer.segments):
            body = muxer.segment(n, _payload(asset, video, n), _payload(asset, audio, n))
            written += _put(out / f"{n}.ts", body)
        written += _put(out / "index.m3u8", hls.ts_playlist(made, video, audio))
    return written


def _payload(asset: Asset, rendition: Rendition | None, n: int) -> bytes:
    return rendition.ts_payload(n).from_fd(asset.sources[rendition.source].fd) if rendition is not None else b""


def _playlists(made: Presentation, folder: Path, ts: bool) -> int:
    written = 0
    for text in made.text:
        out = folder / text.name
        written += _put(out / "all.vtt", text.whole())
        written += sum(_put(out / f"{n}.vtt", text.segment(n)) for n in range(text.segments))
    tops: Iterable[tuple[str, str]] = [("main.m3u8", hls.multivariant(made)), ("main.mpd", dash.mpd(made))]
    for rendition in (*made.video, *made.audio, *made.text):
        written += _put(folder / rendition.name / "index.m3u8", hls.media_playlist(made, rendition))
    for video in made.video:
        written += _put(folder / video.name / "iframes.m3u8", hls.iframe_playlist(made, video))
    if ts:
        tops = [*tops, ("main-ts.m3u8", hls.multivariant(made, ts=True))]
    return written + sum(_put(folder / name, text) for name, text in tops)
