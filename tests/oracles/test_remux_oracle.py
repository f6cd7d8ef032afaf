"""Other containers: what libav reads in the source is what it reads in our segments, within one tick of the source's clock."""

from __future__ import annotations

import io
import re
from fractions import Fraction
from hashlib import md5
from pathlib import Path
from typing import Any

import av
import pytest

from streamgate.media.presentation import Rendition
from streamgate.storage.assets import Asset, Preparing, discover, open_asset
from streamgate.transcode.remux import remux_in_worker
from tests.media_factory import Audio, Video, make, moment
from tests.oracles import footage, libav

_PARAMETER_SETS = {7, 8, 9}


def remuxed(path: Path, data: Path) -> Asset:
    ref = discover(path)[0]
    with pytest.raises(Preparing) as e:
        open_asset(ref, data=data)
    assert (e.value.code, e.value.status, e.value.retryable) == ("asset_preparing", 503, True)
    for job in e.value.jobs:
        assert job.target.is_relative_to(data), "never beside the source"
        remux_in_worker(job.source, job.target)
    return open_asset(ref, data=data)


def whole(asset: Asset, rendition: Rendition) -> bytes:
    fd = asset.sources[rendition.source].fd
    return rendition.init() + b"".join(rendition.segment(n).from_fd(fd) for n in range(rendition.segments))


def payload(packet: av.Packet[Any], container: str) -> str:
    """A digest of what is coded, however the container frames it."""
    body = bytes(packet)
    if container == "transport.ts" or body[:4] == b"\0\0\0\1":
        if packet.stream.type == "audio":
            return md5(body[7:]).hexdigest() if body[:1] == b"\xff" else md5(body).hexdigest()
        if body[:3] in (b"\0\0\1", b"\0\0\0"):
            units = [u.rstrip(b"\0") for u in re.split(b"\0\0\1", body)[1:]]
            if body[:4] == b"\0\0\0\1" or body[:3] == b"\0\0\1":
                return md5(b"|".join(u for u in units if u and u[0] & 31 not in _PARAMETER_SETS)).hexdigest()
    return md5(body).hexdigest()


def lengths_to_digest(body: bytes) -> str:
    units, at = [], 0
    while at < len(body):
        size = int.from_bytes(body[at : at + 4], "big")
        units.append(body[at + 4 : at + 4 + size].rstrip(b"\0"))
        at += 4 + size
    return md5(b"|".join(u for u in units if u and u[0] & 31 not in _PARAMETER_SETS)).hexdigest()


@pytest.mark.parametrize("name", [*footage.OTHER_CONTAINERS, *footage.real(".mkv", ".webm", ".ts")])
def test_packets_equal_the_sources(name: str, tmp_path: Path) -> None:
    path = footage.obtain(name, tmp_path)
    asset = remuxed(path, tmp_path / "data")
    assert asset.findings == ()
    renditions = [*asset.presentation.video, *asset.presentation.audio]
    with av.open(str(path)) as container:
        streams = [s for s in container.streams if s.type in ("video", "audio")]
        theirs: dict[int, list[tuple[Fraction, str, Fraction]]] = {s.index: [] for s in streams}
        for packet in container.demux(streams):
            if packet.size and packet.pts is not None:
                theirs[packet.stream.index].append((moment(packet), payload(packet, name), packet.time_base))
        kinds = {s.index: s.type for s in streams}
    assert sorted(kinds.values()) == sorted(r.kind for r in renditions)
    offsets = []
    for index, kind in kinds.items():
        rendition = next(r for r in renditions if r.kind == kind)
        with av.open(io.BytesIO(whole(asset, rendition)), "r", options={"advanced_editlist": "0"}) as ours_in:
            stream = ours_in.streams[0]
            annex_b = name.endswith(".ts") and kind == "video"
            ours = [
                (moment(p), lengths_to_digest(bytes(p)) if annex_b else md5(bytes(p)).hexdigest())
                for p in ours_in.demux(stream)
                if p.size
            ]
        assert [digest for _, digest in ours] == [digest for _, digest, _ in theirs[index]]
        tick = theirs[index][0][2]
        offset = ours[0][0] - theirs[index][0][0]
        offsets.append((offset, tick))
        for (ours_at, _), (theirs_at, _, _) in zip(ours, theirs[index], strict=True):
            assert abs(ours_at - offset - theirs_at) <= tick
    first, tick = offsets[0]
    assert all(abs(offset - first) <= max(tick, other) for offset, other in offsets), "tracks keep their distance"


@pytest.mark.parametrize("name", [*footage.OTHER_CONTAINERS, *footage.real(".mkv", ".webm", ".ts")])
def test_libav_decodes_without_a_complaint(name: str, tmp_path: Path) -> None:
    asset = remuxed(footage.obtain(name, tmp_path), tmp_path / "data")
    for rendition in (*asset.presentation.video, *asset.presentation.audio):
        assert libav.complaints(whole(asset, rendition)) == []


def test_a_track_that_mp4_cannot_carry_is_a_finding(tmp_path: Path) -> None:
    path = make(tmp_path / "pcm.mkv", Video(), [Audio(), Audio(codec="pcm_s16le", language="fra")], seconds=2)
    asset = remuxed(path, tmp_path / "data")
    assert [r.track.language for r in asset.presentation.audio] == ["eng"]
    [finding] = asset.findings
    assert finding.code == "codec_unsupported"
    assert "pcm_s16le" in finding.detail


def test_the_conversion_is_done_once(tmp_path: Path) -> None:
    path = footage.obtain("matroska.mkv", tmp_path)
    first = remuxed(path, tmp_path / "data")
    again = open_asset(discover(path)[0], data=tmp_path / "data")
    assert list(first.presentation.renditions) == list(again.presentation.renditions)
    assert Fraction(first.presentation.duration) == again.presentation.duration
