"""The TS flavour read back by libav: NAL units and AAC frames equal the source's, times within one tick of 90 kHz."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Iterator
from fractions import Fraction
from hashlib import md5
from pathlib import Path

import av
import pytest

from streamgate.storage.assets import Asset, AssetRef, discover, open_asset
from tests.oracles import footage, libav

_CLOCK = 90_000
_AUD_AND_PARAMETER_SETS = {7, 8, 9}

NAMES = [*footage.GENERATED]


def segments(asset: Asset, variant: str) -> list[bytes]:
    """Every TS segment, each cut alone by a muxer of its own, in random order."""
    count = asset.presentation.ts_muxer(*variant.split("+")).segments
    order = list(range(count))
    random.Random(1).shuffle(order)
    cuts = {}
    for n in order:
        fresh = open_asset(AssetRef(asset.id, asset.title, asset.sources[0].path))
        halves = [
            half.ts_payload(n).from_fd(fresh.sources[half.source].fd) if half else b""
            for half in fresh.presentation.ts_variants[variant]
        ]
        cuts[n] = fresh.presentation.ts_muxer(*variant.split("+")).segment(n, *halves)
    return [cuts[n] for n in range(count)]


def units_of_avc(sample: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(sample):
        size = int.from_bytes(sample[at : at + 4], "big")
        yield sample[at + 4 : at + 4 + size]
        at += 4 + size


def units_of_annex_b(sample: bytes) -> Iterator[bytes]:
    for unit in re.split(b"\x00\x00\x01", sample)[1:]:
        yield unit.rstrip(b"\x00")


def digest(units: Iterator[bytes]) -> str:
    kept = [u.rstrip(b"\x00") for u in units if u and u[0] & 31 not in _AUD_AND_PARAMETER_SETS]
    return md5(b"\0".join(kept)).hexdigest()


def source_packets(path: Path, track: int) -> list[tuple[int, int, bytes, Fraction]]:
    with av.open(str(path), options={"advanced_editlist": "0"}) as container:
        stream = next(s for s in container.streams if s.id == track)
        return [
            (p.dts, p.pts or 0, bytes(p), p.time_base) for p in container.demux(stream) if p.dts is not None and p.size
        ]


def ts_packets(data: bytes, kind: str) -> list[tuple[int, int, bytes]]:
    with av.open(io.BytesIO(data), "r", format="mpegts") as container:
        stream = next(s for s in container.streams if s.type == kind)
        return [(p.dts, p.pts or 0, bytes(p)) for p in container.demux(stream) if p.dts is not None and p.size]


def close(ours: int, theirs: Fraction) -> bool:
    return abs(ours - theirs) <= 1


@pytest.mark.parametrize("name", [*NAMES, *(n for n in footage.real(".mp4") if n.startswith(("bbb", "nasa")))])
def test_ts_packets_equal_the_sources(name: str, tmp_path: Path) -> None:
    path = footage.obtain(name, tmp_path)
    asset = open_asset(discover(path)[0])
    variants = asset.presentation.ts_variants
    assert variants
    for variant, (video, audio) in variants.items():
        whole = b"".join(segments(asset, variant))
        with av.logging.Capture() as logs:
            if video is not None:
                theirs = source_packets(path, video.track.id)
                ours = ts_packets(whole, "video")
                assert len(ours) == len(theirs)
                # libav counts from another zero where composition offsets are negative, and TS must as well.
                early = Fraction(min(0, int(video.track.composition_offsets().min())), video.track.timescale)
                for (dts, pts, body), (their_dts, their_pts, their_body, base) in zip(ours, theirs, strict=True):
                    assert close(dts, (their_dts * base + early + asset.presentation.shift) * _CLOCK)
                    assert close(pts, (their_pts * base + early + asset.presentation.shift) * _CLOCK)
                    assert digest(units_of_annex_b(body)) == digest(units_of_avc(their_body))
            if audio is not None:
                theirs = source_packets(path, audio.track.id)
                ours = ts_packets(whole, "audio")
                assert len(ours) == len(theirs)
                for (_, pts, body), (_, their_pts, their_body, base) in zip(ours, theirs, strict=True):
                    assert close(pts, (their_pts * base + asset.presentation.shift) * _CLOCK)
                    assert body[7:] == their_body, "an ADTS header in front of the same raw frame"
        assert [m for _, _, m in logs] == []


@pytest.mark.parametrize("name", [*NAMES, *(n for n in footage.real(".mp4") if n.startswith(("bbb", "nasa")))])
def test_ts_decodes_without_a_complaint(name: str, tmp_path: Path) -> None:
    asset = open_asset(discover(footage.obtain(name, tmp_path))[0])
    for variant in asset.presentation.ts_variants:
        assert libav.complaints(b"".join(segments(asset, variant))) == []
