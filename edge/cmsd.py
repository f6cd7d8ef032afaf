"""Common Media Server Data (CTA-5006): what this server tells players and caches of an object and of its delivery."""

from __future__ import annotations

import socket
import struct
from typing import Any

from edge.routes import Target
from streamgate.media.presentation import Presentation, Rendition, TextRendition

STATIC, DYNAMIC = "CMSD-Static", "CMSD-Dynamic"

_MANIFESTS = {"multivariant": "h", "multivariant_ts": "h", "mpd": "d", "media_playlist": "h", "iframe_playlist": "h"}
_MANIFESTS["ts_playlist"] = "h"
# Of the kernel's tcp_info (linux/tcp.h): where the application had nothing to send, in which case a rate says little; the
# round trip in µs; the rate of delivery in bytes/s.
_LIMITED, _RTT, _RATE, _SIZE = 7, 68, 160, 168


def static(target: Target, made: Presentation, size: int, name: str) -> str:
    """CMSD-Static of an object of ``size`` bytes: its type, format where only one has it, duration (ms), bitrate (kbit/s), the
    next one, and this server's ``name``."""
    told: dict[str, int | str] = {"n": quoted(name), "st": "v"}
    route = target.route.name
    rendition = made.renditions.get(target.rendition)
    if route in _MANIFESTS:
        told |= {"ot": "m", "sf": _MANIFESTS[route]}
    elif route == "init":
        told["ot"] = "i"
    elif isinstance(rendition, TextRendition):
        told["ot"] = "c"
    elif isinstance(rendition, Rendition) and route == "segment":
        told["ot"] = "v" if rendition.kind == "video" else "a"
        seconds = int(rendition.times[target.number + 1] - rendition.times[target.number]) / rendition.timescale
        _lasting(told, seconds, size)
        if target.number + 1 < rendition.segments:
            told["nor"] = quoted(f"{target.number + 1}.m4s")
    elif route == "keyframe":
        told["ot"] = "v"
    elif route == "ts_segment":
        told |= {"ot": "av" if "none" not in (target.rendition, target.audio) else "v" if rendition else "a", "sf": "h"}
    return ",".join(f"{key}={value}" for key, value in sorted(told.items()))


def dynamic(name: str, transport: Any, delay: float, *, duress: bool) -> str:
    """CMSD-Dynamic: how long the answer took to begin (s), and what the kernel has measured of the connection, if it has."""
    told = [quoted(name)] + ["du"] * duress
    rtt, rate = measured(transport)
    told += [f"etp={rate}"] if rate else []
    told.append(f"rd={round(delay * 1000)}")
    told += [f"rtt={rtt}"] if rtt else []
    return ";".join(told)


def measured(transport: Any) -> tuple[int, int]:
    """Round trip (ms) and throughput (kbit/s) of a connection as the kernel knows them; 0: it does not."""
    connection = transport.get_extra_info("socket") if transport is not None else None
    try:
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SIZE) if connection is not None else b""
    except OSError:
        return 0, 0
    if len(told) < _SIZE:
        return 0, 0
    rtt, rate = struct.unpack_from("<I", told, _RTT)[0], struct.unpack_from("<Q", told, _RATE)[0]
    return round(rtt / 1000), 0 if told[_LIMITED] & 1 else round(rate * 8 / 1000)


def quoted(text: str) -> str:
    """A string of structured fields (RFC 9651 section 3.3.3), which is ASCII without control characters."""
    text = "".join(letter for letter in text if " " <= letter <= "~")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _lasting(told: dict[str, int | str], seconds: float, size: int) -> None:
    if seconds > 0:
        told |= {"d": round(seconds * 1000), "br": round(size * 8 / seconds / 1000)}
