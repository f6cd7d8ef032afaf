"""Other containers into MP4: nothing lost, nothing moved, never half a file, and walls around libav."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any, TypedDict, Unpack

import av
import av.subtitles.stream
import pytest

from streamgate.errors import CODES, StreamGateError
from streamgate.transcode import remux as remuxing
from streamgate.transcode.remux import remux, remux_in_worker
from streamgate.transcode.streamcopy import ASS_HEADER, flatten, plain
from tests.conftest import ROOT
from tests.media_factory import moment


class Limits(TypedDict, total=False):
    deadline_s: float
    max_bytes: int


class Made(TypedDict, total=False):
    video: str
    audio: str
    rate: int


LIMITS = Limits(deadline_s=30.0, max_bytes=1 << 30)
Moment = tuple[Fraction, Fraction | None]


def make(path: Path, *, video: str = "libx264", audio: str = "aac", rate: int = 44_100, seconds: int = 3) -> Path:
    """A small file whose container is told by its suffix: 23.976 fps with B-frames, and a sound."""
    with av.open(str(path), "w") as out:
        picture = out.add_stream(
            video, rate=Fraction(24000, 1001), options={"g": "24", "bf": "3", "deadline": "realtime"}
        )
        assert isinstance(picture, av.VideoStream)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = (
            out.add_stream(audio, rate=rate, layout="stereo" if audio != "libmp3lame" else "mono") if audio else None
        )
        if sound is not None:
            assert isinstance(sound, av.AudioStream)
            sound.metadata["language"] = "fra"
            resampler = av.AudioResampler(
                sound.format, sound.layout, rate, frame_size=sound.codec_context.frame_size or 1024
            )
        for number in range(24 * seconds):
            frame = av.VideoFrame(64, 48, "yuv420p")
            for i, plane in enumerate(frame.planes):
                plane.update(bytes([(number * 5 + 40 * i) % 256]) * plane.buffer_size)
            frame.pts, frame.time_base = number, Fraction(1001, 24000)
            out.mux(picture.encode(frame))
        for start in range(0, seconds * rate if sound is not None else 0, 1024):
            assert isinstance(sound, av.AudioStream)
            samples = av.AudioFrame("s16", "stereo", 1024)
            samples.planes[0].update(bytes((start // 1024 * 7 + i) % 256 for i in range(4096)))
            samples.sample_rate, samples.pts, samples.time_base = rate, start, Fraction(1, rate)
            for part in resampler.resample(samples):
                out.mux(sound.encode(part))
        out.mux(picture.encode(None))
        if isinstance(sound, av.AudioStream):
            out.mux(sound.encode(None))
    return path


def read(path: Path, kind: str) -> tuple[list[Moment], list[str], Fraction]:
    """Times (pts, dts) in seconds, payload hashes, and the time base of the first stream of a kind."""
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        packets = [p for p in container.demux(stream) if p.size]
        base = stream.time_base
        times = [(p.pts * base, None if p.dts is None else p.dts * base) for p in packets]
        return times, [hashlib.md5(bytes(p)).hexdigest() for p in packets], base


CASES: dict[str, tuple[str, Made, str]] = {
    "matroska": ("a.mkv", {}, "exact"),
    "matroska_hevc_flac": ("a.mkv", {"video": "libx265", "audio": "flac", "rate": 48_000}, "exact"),
    "matroska_mp3": ("a.mkv", {"audio": "libmp3lame"}, "exact"),
    "webm": ("a.webm", {"video": "libvpx-vp9", "audio": "libopus", "rate": 48_000}, "exact"),
    "transport_stream": ("a.ts", {}, "reframed"),
    "quicktime": ("a.mov", {}, "exact"),
    "no_audio": ("a.mkv", {"audio": ""}, "exact"),
}


@pytest.mark.parametrize("case", CASES)
def test_samples_and_times_survive(case: str, tmp_path: Path) -> None:
    name, options, payload = CASES[case]
    source, target = make(tmp_path / name, **options), tmp_path / "out.mp4"
    assert remux(source, target, **LIMITS) == ()
    kinds = ("video", "audio") if options.get("audio", "aac") else ("video",)
    before = {kind: read(source, kind) for kind in kinds}
    after = {kind: read(target, kind) for kind in kinds}
    first = before["video"][0][0][0]
    shift = first - after["video"][0][0][0]  # one constant for all tracks
    for kind in kinds:
        times, hashes, base = before[kind]
        moved, kept, _ = after[kind]
        assert len(moved) == len(times)
        for (pts, dts), (new_pts, new_dts) in zip(times, moved, strict=True):
            assert abs(new_pts + shift - pts) <= base
            assert dts is None or new_dts is None or abs(new_dts + shift - dts) <= base
        if payload == "exact":
            assert kept == hashes


def test_transport_stream_carries_the_same_pictures(tmp_path: Path) -> None:
    source, target = make(tmp_path / "a.ts"), tmp_path / "out.mp4"
    remux(source, target, **LIMITS)

    def pictures(path: Path) -> list[bytes]:
        with av.open(str(path)) as container:
            return [bytes(plane) for f in container.decode(video=0) for plane in f.planes]

    assert pictures(target) == pictures(source)
    with av.open(str(target)) as container:
        assert (container.streams.video[0].codec_context.extradata or b"").startswith(b"\1")  # an avcC, not Annex B
        assert container.streams.audio[0].codec_context.extradata  # an AudioSpecificConfig, made from ADTS


def test_transport_stream_begins_at_zero(tmp_path: Path) -> None:
    source, target = make(tmp_path / "a.ts"), tmp_path / "out.mp4"
    remux(source, target, **LIMITS)
    starts = [read(target, kind)[0][0][0] for kind in ("video", "audio")]
    assert min(starts) == 0
    assert [read(source, kind)[0][0][0] for kind in ("video", "audio")] != starts


def test_milliseconds_of_matroska_become_samples(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    remux(make(tmp_path / "a.mkv"), target, **LIMITS)
    times = [pts for (pts, _) in read(target, "audio")[0]]
    steps = {after - before for before, after in zip(times[1:], times[2:], strict=False)}
    assert steps == {Fraction(1024, 44_100)}


def test_moov_comes_first_and_language_stays(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    remux(make(tmp_path / "a.mkv"), target, **LIMITS)
    data = target.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(target)) as container:
        assert container.streams.audio[0].language == "fra"


def with_subtitles(folder: Path, codec: str) -> Path:
    """A Matroska file with one video and two overlapping cues."""
    make(folder / "plain.mp4", audio="")
    texts = {
        "srt": ["<i>Hello</i> & all", "Over it"],
        "ass": [r"0,0,Default,,0,0,0,,{\i1}Hello{\i0} & all", "1,0,Default,,0,0,0,,Over it"],
    }[codec]
    with av.open(str(folder / "plain.mp4")) as source, av.open(str(folder / "subs.mkv"), "w") as out:
        video = source.streams.video[0]
        copy = out.add_stream_from_template(video, opaque=True)
        text = out.add_stream(codec)
        assert isinstance(text, av.subtitles.stream.SubtitleStream)
        text.codec_context.subtitle_header = ASS_HEADER
        text.time_base = text.codec_context.time_base = Fraction(1, 1000)
        text.metadata["language"] = "deu"
        packets: list[av.Packet[Any]] = [p for p in source.demux(video) if p.size]
        cues = []
        for (start, end), words in zip(((500, 2000), (1500, 2500)), texts, strict=True):
            cue = av.Packet(words.encode())
            cue.pts = cue.dts = start
            cue.duration, cue.time_base, cue.stream = end - start, Fraction(1, 1000), text
            cues.append(cue)
        for packet in packets:
            packet.stream = copy
        for packet in sorted([*packets, *cues], key=lambda p: (p.dts or 0) * p.time_base):
            out.mux_one(packet)
    return folder / "subs.mkv"


@pytest.mark.parametrize("codec", ["srt", "ass"])
def test_text_becomes_tx3g(codec: str, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    assert remux(with_subtitles(tmp_path, codec), target, **LIMITS) == ()
    with av.open(str(target)) as container:
        stream = container.streams.subtitles[0]
        assert (stream.codec_context.codec.canonical_name, stream.language) == ("mov_text", "deu")
        cues = [(moment(p) * 1000, bytes(p)[2:].decode()) for p in container.demux(stream) if p.size > 2]
    assert cues == [
        (Fraction(500), "Hello & all"),
        (Fraction(1500), "Hello & all\nOver it"),
        (Fraction(2000), "Over it"),
    ]


def test_flatten() -> None:
    assert flatten([(0, 4, "a"), (1, 2, "b"), (6, 7, "c")]) == [
        (0, 1, "a"), (1, 2, "a\nb"), (2, 4, "a"), (6, 7, "c"),
    ]  # fmt: skip
    assert flatten([]) == []


def test_plain() -> None:
    assert plain(r"1,0,Default,,0,0,0,,{\an8}One, two\NThree", "ass") == "One, two\nThree"
    assert plain("<v Ann>1 &lt; 2</v>\r\n3 < 4", "webvtt") == "1 < 2\n3 < 4"


def test_what_mp4_cannot_carry_is_left_out_with_a_finding(tmp_path: Path) -> None:
    source = make(tmp_path / "a.mov", audio="pcm_s16le")
    (finding,) = remux(source, tmp_path / "out.mp4", **LIMITS)
    assert (finding.code, finding.subject) == ("codec_unsupported", "audio track 2")
    assert "pcm_s16le" in finding.detail
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def failure(source: Path, target: Path, **limits: Unpack[Limits]) -> str:
    """The code with which the conversion fails; nothing may be left behind."""
    with pytest.raises(StreamGateError) as caught:
        remux(source, target, **(LIMITS | limits))
    assert [path for path in target.parent.iterdir() if path != source] == []
    return caught.value.code


def test_bad_input(tmp_path: Path) -> None:
    target = tmp_path / "out" / "a.mp4"
    assert failure(tmp_path / "none.mkv", target) == "source_not_found"
    (tmp_path / "a.mkv").write_bytes(os.urandom(5000))
    assert failure(tmp_path / "a.mkv", target) == "remux_failed"
    (tmp_path / "b.mkv").write_bytes(b"")
    assert failure(tmp_path / "b.mkv", target) == "remux_failed"


def test_demuxers_that_open_other_files_are_shut_out(tmp_path: Path) -> None:
    secret = make(tmp_path / "secret.ts")
    (tmp_path / "a.mkv").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{secret}\n#EXT-X-ENDLIST\n")
    assert failure(tmp_path / "a.mkv", tmp_path / "out" / "a.mp4") == "remux_failed"
    (tmp_path / "b.mkv").write_text(f"ffconcat version 1.0\nfile {secret.name}\n")
    assert failure(tmp_path / "b.mkv", tmp_path / "out" / "a.mp4") == "remux_failed"


def test_limits(tmp_path: Path) -> None:
    source = make(tmp_path / "a.mkv")
    assert failure(source, tmp_path / "out.mp4", max_bytes=1000) == "output_failed"
    assert failure(source, tmp_path / "out.mp4", deadline_s=-1.0) == "remux_failed"


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(tmp_path / "a.mkv")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert failure(source, tmp_path / "out.mp4") == "output_failed"


def test_worker_hits_the_limit_of_its_file(tmp_path: Path) -> None:
    source = make(tmp_path / "a.mkv")
    code = f"""
import resource, signal
from pathlib import Path
from streamgate.errors import StreamGateError
from streamgate.transcode.remux import remux
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    remux(Path({str(source)!r}), Path({str(tmp_path / "out.mp4")!r}), deadline_s=30, max_bytes=1 << 30)
except StreamGateError as error:
    print(error.code)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "output_failed", done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]


def test_worker(tmp_path: Path) -> None:
    source = make(tmp_path / "a.mov", audio="pcm_s16le")
    (finding,) = remux_in_worker(source, tmp_path / "out.mp4")
    assert finding.code == "codec_unsupported"
    assert read(tmp_path / "out.mp4", "video")[1] == read(source, "video")[1]
    with pytest.raises(StreamGateError) as caught:
        remux_in_worker(tmp_path / "none.mkv", tmp_path / "none.mp4")
    assert caught.value.code == "source_not_found"


def test_worker_speaks_json(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "streamgate.transcode.remux", str(tmp_path / "none.mkv"), str(tmp_path / "a.mp4")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        answer = json.loads(worker.stdout.read())
        assert worker.wait() == 1
    assert answer["code"] == "source_not_found"
    assert answer["code"] in CODES


def blocked_worker(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A worker that waits for a lock that the caller holds: at work for as long as a test likes."""
    descriptor = os.open(folder / ".out.mp4.part", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    command = [sys.executable, "-m", "streamgate.transcode.remux", str(folder / "a.mkv"), str(folder / "out.mp4")]
    worker = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    return worker, descriptor


def has_open(process: int, name: str) -> bool:
    """Whether ``process`` holds a file of that name open."""
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if Path(os.readlink(descriptor)).name == name:
                return True
    return False


def test_worker_dies_with_its_caller(tmp_path: Path) -> None:
    worker, descriptor = blocked_worker(tmp_path)
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.close()  # what the kernel does when the caller is killed
    assert worker.wait(30) == -signal.SIGKILL
    worker.stdout.close()
    os.close(descriptor)
    assert not (tmp_path / "out.mp4").exists()


def test_a_killed_worker_leaves_no_half_file_and_hinders_nobody(tmp_path: Path) -> None:
    source = make(tmp_path / "a.mkv")
    (tmp_path / ".out.mp4.part").write_bytes(b"half of a file, from a worker that was killed")
    remux(source, tmp_path / "out.mp4", **LIMITS)
    assert read(tmp_path / "out.mp4", "video")[1] == read(source, "video")[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mkv", "out.mp4"]


def test_a_second_worker_waits_and_takes_the_first_ones_file(tmp_path: Path) -> None:
    (tmp_path / "a.mkv").write_bytes(b"not a container: converting it would fail")
    worker, descriptor = blocked_worker(tmp_path)
    assert worker.stdin is not None and worker.stdout is not None
    while not has_open(worker.pid, ".out.mp4.part"):
        assert worker.poll() is None
        os.sched_yield()
    (tmp_path / ".out.mp4.part").write_bytes(b"done")
    (tmp_path / ".out.mp4.part").rename(tmp_path / "out.mp4")
    os.close(descriptor)
    assert json.loads(worker.stdout.read()) == {"findings": []}
    worker.wait()
    worker.stdin.close()
    worker.stdout.close()
    assert (tmp_path / "out.mp4").read_bytes() == b"done"


def test_stop_workers(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / ".out.mp4.part", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    codes: list[str] = []

    def call() -> None:
        with pytest.raises(StreamGateError) as caught:
            remux_in_worker(tmp_path / "a.mkv", tmp_path / "out.mp4")
        codes.append(caught.value.code)

    thread = threading.Thread(target=call)
    thread.start()
    deadline = time.monotonic() + 30
    while not codes and time.monotonic() < deadline:
        remuxing.stop_workers()
        thread.join(0.05)
    os.close(descriptor)
    assert codes == ["remux_failed"]
