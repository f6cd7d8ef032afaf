"""What libav finds in a file, behind walls: local files only, and only by the demuxers that are needed.

libav picks a demuxer by content, not by name, and some demuxers (HLS, concat, SDP) open further files and addresses.
A file that a stranger uploaded must reach none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition, Stream

from streamgate.errors import Finding, StreamGateError

DEMUXERS = "matroska,webm,mpegts,mov,mp4"
"""Names for libav's ``format_whitelist``; each one reads the file it was given and no other."""

CARRIED = frozenset("h264 hevc av1 vp9 aac opus flac ac3 eac3 mp3 mov_text".split())
"""Codecs that are copied into MP4 as they are: those that the presentation can offer."""

TEXT = frozenset("subrip ass ssa webvtt text".split())
"""Subtitle codecs whose cues are written into a ``tx3g`` track."""


@contextmanager
def opened(source: Path) -> Iterator[InputContainer]:
    """``source`` as a libav container.

    Raises ``source_not_found``, ``source_unreadable``, and ``remux_failed`` where libav makes nothing of it.
    """
    try:
        container = av.open(
            f"file:{source}",
            options={"protocol_whitelist": "file", "format_whitelist": DEMUXERS},
            metadata_errors="replace",
        )
    except FileNotFoundError as error:
        raise StreamGateError("source_not_found", f"{source.name}: there is no such file") from error
    except (PermissionError, IsADirectoryError) as error:
        raise StreamGateError("source_unreadable", f"{source.name}: {error.strerror}") from error
    except (av.FFmpegError, ValueError) as error:
        raise StreamGateError("remux_failed", f"{source.name}: not a container that can be read ({error})") from error
    with container:
        yield container


def name_of(stream: Stream) -> str:
    """libav's name of the stream's codec (not of the decoder at hand), ``unknown`` where it has none."""
    context = getattr(stream, "codec_context", None)
    return context.codec.canonical_name if context is not None else "unknown"


def select(container: InputContainer) -> tuple[list[Stream], list[Finding]]:
    """The streams worth carrying over, in file order, and a finding for every other video, audio or subtitle stream."""
    chosen: list[Stream] = []
    findings: list[Finding] = []
    for stream in container.streams:
        if stream.type not in ("video", "audio", "subtitle") or stream.disposition & Disposition.attached_pic:
            continue
        codec = name_of(stream)
        if codec in CARRIED or codec in TEXT:
            chosen.append(stream)
        else:
            subject = f"{stream.type} track {stream.index + 1}"
            findings.append(Finding("codec_unsupported", subject, f"{codec} has no place in HLS or DASH"))
    return chosen, findings
