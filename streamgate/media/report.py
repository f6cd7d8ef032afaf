"""What ``streamgate inspect`` tells of an asset, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from streamgate.errors import Finding
from streamgate.media.presentation import Presentation, Rendition
from streamgate.native.index import Index
from streamgate.native.samples import Track


def describe(
    indexes: Sequence[Index], names: Sequence[str], made: Presentation, findings: Sequence[Finding]
) -> dict[str, Any]:
    """Sources with their tracks, the renditions offered, and the findings; every value fits into JSON.

    Times are seconds, rates bits per second, sizes bytes.
    """
    offered = {(r.source, r.track.id): r for r in (*made.video, *made.audio)}
    return {
        "duration": float(made.duration),
        "target_duration": made.target_duration,
        "shift": float(made.shift),
        "independent_segments": made.independent,
        "sources": [
            {
                "file": name,
                "bytes": index.size,
                "fragmented": index.fragmented,
                "brands": list(index.brands),
                "index_bytes": len(index.dumps()),
                "tracks": [_track(index, track, offered.get((n, track.id))) for track in index.tracks],
            }
            for n, (index, name) in enumerate(zip(indexes, names, strict=True))
        ],
        "renditions": [_rendition(r) for r in (*made.video, *made.audio)]
        + [{"name": t.name, "kind": "text", "language": t.language, "segments": t.segments} for t in made.text],
        "findings": [{"code": f.code, "subject": f.subject, "detail": f.detail} for f in findings],
    }


def _track(index: Index, track: Track, rendition: Rendition | None) -> dict[str, Any]:
    seconds = track.duration / track.timescale if track.timescale else 0.0
    entry = track.entries[track.entries_used[0]] if track.entries_used else b""
    told: dict[str, Any] = {
        "id": track.id,
        "handler": track.handler,
        "entry": entry[4:8].decode("latin-1"),
        "codec": rendition.codec.string if rendition else None,
        "language": track.language,
        "name": track.name,
        "timescale": track.timescale,
        "samples": track.samples,
        "duration": seconds,
        "bytes": track.payload,
        "bitrate": round(8 * track.payload / seconds) if seconds else 0,
        "edits": [list(edit) for edit in track.edits],
        "offered_as": rendition.name if rendition else None,
    }
    if track.handler == "vide":
        told |= {"width": track.width, "height": track.height, "keyframes": _keyframes(track)}
    return told


def _keyframes(track: Track) -> dict[str, Any]:
    """How many there are, and how far apart in seconds (the end of the track counts as one)."""
    keys = np.arange(track.samples, dtype=np.uint32) if track.all_sync else track.keyframes
    if not len(keys):
        return {"count": 0, "longest_gap": None}
    times = np.append(track.dts()[keys], track.first_dts + track.duration)
    return {"count": len(keys), "longest_gap": float(np.diff(times).max()) / track.timescale}


def _rendition(r: Rendition) -> dict[str, Any]:
    return {
        "name": r.name,
        "kind": r.kind,
        "codec": r.codec.string,
        "language": r.language,
        "label": r.label,
        "width": r.width,
        "height": r.height,
        "frame_rate": float(r.frame_rate) if r.frame_rate else None,
        "bandwidth": r.bandwidth,
        "average_bandwidth": r.average_bandwidth,
        "segments": r.segments,
        "durations": [round(float(d) / r.timescale, 6) for d in r.durations],
    }
