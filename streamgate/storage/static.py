"""A presentation as static files, under the same names that the edge gives them, for any web server."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from streamgate.errors import StreamGateError
from streamgate.media import dash, hls
from streamgate.media.presentation import Presentation
from streamgate.media.renditions import Rendition, TextRendition
from streamgate.native.copier import MOST_OUTPUTS, Copier
from streamgate.native.gather import Plan
from streamgate.native.mpegts import Muxer
from streamgate.storage.assets import Asset

MAX_TS_SEGMENT = 256 << 20  # bytes; a segment of MPEG-TS is built whole, in memory


def write(
    asset: Asset,
    folder: Path,
    *,
    ts: bool = False,
    trick_play: bool = False,
    progress: Callable[[int, int], None] | None = None,
    max_ts_segment: int = MAX_TS_SEGMENT,
) -> int:
    """Write HLS and DASH of ``asset`` into ``folder``, new or empty; returns the number of bytes written.

    ``ts`` adds MPEG-TS segments, ``trick_play`` keyframes that play alone (a file each) and playlists of them.
    Playlists come last, so that whoever finds one finds all it names.
    ``progress`` is called with (segments done, segments in all).

    Raises :class:`StreamGateError` before anything is written: ``output_exists``, and ``ts_unavailable`` where a segment
    of MPEG-TS would have more than ``max_ts_segment`` bytes. Raises ``output_failed`` or ``source_*`` later;
    the detail then says how far it came, and what is there stays.
    """
    made = asset.presentation
    muxers = _ts_muxers(made, max_ts_segment) if ts else {}
    done = 0

    def count(segments: int, total: int) -> None:
        nonlocal done
        done = segments
        if progress is not None:
            progress(segments, total)

    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise StreamGateError("output_exists", f"{folder} is not empty")
        for name in made.renditions:
            (folder / name).mkdir()
        written = _segments(asset, folder, trick_play, count)
        written += _ts(asset, folder, muxers)
        return written + _playlists(made, folder, ts, trick_play)
    except OSError as e:
        raise _unfinished("output_failed", os.strerror(e.errno or errno.EIO), folder, done) from e
    except StreamGateError as e:
        if e.code == "output_exists":
            raise
        raise _unfinished(e.code, e.detail, folder, done) from e


def _unfinished(code: str, detail: str, folder: Path, segments: int) -> StreamGateError:
    return StreamGateError(
        code, f"{detail}; {folder} is left unfinished (whole segments of each rendition: {segments})"
    )


def _segments(asset: Asset, folder: Path, trick_play: bool, progress: Callable[[int, int], None]) -> int:
    renditions: list[Rendition] = [*asset.presentation.video, *asset.presentation.audio]
    written = 0
    for rendition in renditions:
        written += _put(folder / rendition.name / "init.mp4", rendition.init())
    last = max((r.segments for r in renditions), default=0)
    sources = [
        (Copier(asset.sources[number].fd), [(f"{folder}/{r.name}/", r) for r in renditions if r.source == number])
        for number in sorted({r.source for r in renditions})
    ]
    # Segment by segment over all renditions, so that the source is read from front to end.
    for n in range(last):
        for copier, outputs in sources:
            files = [file for path, r in outputs if n < r.segments for file in _files(path, r, n, trick_play)]
            for first in range(0, len(files), MOST_OUTPUTS):
                written += _cut(copier, files[first : first + MOST_OUTPUTS])
        progress(n + 1, last)
    return written


def _files(path: str, rendition: Rendition, n: int, trick_play: bool) -> list[tuple[str, Plan]]:
    """What segment ``n`` of a rendition gives: the segment and, for trick play, the keyframes in it."""
    files = [(f"{path}{n}.m4s", rendition.segment(n))]
    if trick_play:
        first, end = np.searchsorted(rendition.keyframe_samples, rendition.starts[n : n + 2])
        files += [(f"{path}k{k}.m4s", rendition.keyframe(k)) for k in range(first, end)]
    return files


def _cut(copier: Copier, files: list[tuple[str, Plan]]) -> int:
    opened: list[tuple[Plan, int]] = []
    try:
        for path, plan in files:
            opened.append((plan, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)))
        return copier.copy(opened)
    finally:
        for _, fd in opened:
            os.close(fd)


def _put(path: Path, data: bytes | str) -> int:
    body = data.encode() if isinstance(data, str) else data
    path.write_bytes(body)
    return len(body)


def _ts_muxers(made: Presentation, limit: int) -> dict[str, Muxer]:
    """The muxer of each variant, by its name; no segment has more than ``limit`` bytes."""
    muxers = {name: made.ts_muxer(*name.split("+")) for name in made.ts_variants}
    for name, muxer in muxers.items():
        largest = int(muxer.sizes().max(initial=0))
        if largest > limit:
            raise StreamGateError("ts_unavailable", f"{name}: a segment has {largest} bytes, more than {limit}")
    return muxers


def _ts(asset: Asset, folder: Path, muxers: dict[str, Muxer]) -> int:
    made = asset.presentation
    written = 0
    for name, muxer in muxers.items():
        video, audio = made.ts_variants[name]
        out = folder / name
        out.mkdir()
        for n in range(muxer.segments):
            body = muxer.segment(n, _payload(asset, video, n), _payload(asset, audio, n))
            written += _put(out / f"{n}.ts", body)
        written += _put(out / "index.m3u8", hls.ts_playlist(made, video, audio))
    return written


def _payload(asset: Asset, rendition: Rendition | None, n: int) -> bytes:
    return rendition.ts_payload(n).from_fd(asset.sources[rendition.source].fd) if rendition is not None else b""


def _playlists(made: Presentation, folder: Path, ts: bool, trick_play: bool) -> int:
    written = 0
    for text in made.text:
        out = folder / text.name
        written += _put(out / "all.vtt", text.whole())
        written += sum(_put(out / f"{n}.vtt", text.segment(n)) for n in range(text.segments))
    tops = [
        ("main.m3u8", hls.multivariant(made, trick_play=trick_play)),
        ("main.mpd", dash.mpd(made, trick_play=trick_play)),
    ]
    everything: list[Rendition | TextRendition] = [*made.video, *made.audio, *made.text]
    for rendition in everything:
        written += _put(folder / rendition.name / "index.m3u8", hls.media_playlist(made, rendition))
    for video in (r for r in made.video if trick_play and r.keyframes):
        written += _put(folder / video.name / "iframes.m3u8", hls.iframe_playlist(made, video))
    if ts:
        tops.append(("main-ts.m3u8", hls.multivariant(made, ts=True)))
    return written + sum(_put(folder / name, text) for name, text in tops)
