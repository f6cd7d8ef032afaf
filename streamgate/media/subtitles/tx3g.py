"""Reading timed text tracks of MP4: ``tx3g`` (3GPP TS 26.245 section 5.17), ``wvtt`` (ISO/IEC 14496-30 section 7)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from .cue import Cue, check_size, escape, finish, join_lines, malformed

# Face style flags of a style record (3GPP TS 26.245 section 5.16), and the tag for each.
_FACES = ((1, "b"), (2, "i"), (4, "u"))
_STYLE_RECORD = 12


def parse_tx3g(samples: Iterable[tuple[int, int, bytes]]) -> list[Cue]:
    """The cues of a ``tx3g`` track; each sample is (start ms, end ms, bytes). Samples without text give no cue.

    Bold, italic and underline are kept; colours, fonts and effects are dropped. Raises ``subtitle_malformed``.
    """
    cues = []
    total = 0
    for start, end, sample in samples:
        total += len(sample)
        check_size(total)
        text = _tx3g_text(sample)
        if text:
            cues.append(Cue(start, end, text))
    return finish(cues)


def _tx3g_text(sample: bytes) -> str:
    if not sample:
        return ""
    if len(sample) < 2 or len(sample) < 2 + int.from_bytes(sample[:2]):
        raise malformed("a text sample is shorter than its text")
    end = 2 + int.from_bytes(sample[:2])
    data = sample[2:end]
    encoding = "utf-16" if data[:2] in (b"\xfe\xff", b"\xff\xfe") else "utf-8"
    # A terminating NUL is QuickTime's habit.
    text = data.decode(encoding, errors="replace").rstrip("\0").replace("\0", "\ufffd")
    faces = bytearray(len(text))
    for kind, payload in _boxes(sample[end:]):
        if kind == b"styl" and len(payload) >= 2:
            count = int.from_bytes(payload[:2])
            styled = 0
            for at in range(2, min(len(payload) - _STYLE_RECORD + 1, 2 + _STYLE_RECORD * count), _STYLE_RECORD):
                first, last, face = struct.unpack_from(">HH2xB", payload, at)
                last = min(last, len(text))
                # Records are in order and do not overlap (section 5.17.1.1); others are overlooked.
                if styled <= first < last:
                    faces[first:last] = bytes([face]) * (last - first)
                    styled = last
    return join_lines(_tagged(text.replace("\r\n", " \n").replace("\r", "\n"), faces))


def _tagged(text: str, faces: bytearray) -> str:
    """The text, escaped, with tags where the face changes; no tag goes across lines, so that any line stands alone."""
    out = []
    current = 0
    for character, face in zip(text, faces, strict=True):
        wanted = 0 if character == "\n" else face & 7
        if wanted != current:
            out += [f"</{tag}>" for flag, tag in reversed(_FACES) if current & flag]
            out += [f"<{tag}>" for flag, tag in _FACES if wanted & flag]
            current = wanted
        out.append(escape(character))
    out += [f"</{tag}>" for flag, tag in reversed(_FACES) if current & flag]
    return "".join(out)


def parse_wvtt(samples: Iterable[tuple[int, int, bytes]]) -> list[Cue]:
    """The cues of a ``wvtt`` track; each sample is (start ms, end ms, bytes).

    A cue that goes on over several samples, which such tracks cut wherever any cue begins or ends, becomes one again.
    Raises ``subtitle_malformed``.
    """
    cues: list[Cue] = []
    open_cues: dict[tuple[str, str, str], int] = {}
    total = 0
    for start, end, sample in samples:
        total += len(sample)
        check_size(total)
        ongoing = {}
        for key in _wvtt_cues(sample):
            place = open_cues.get(key)
            if place is not None and cues[place].end == start:
                cues[place] = Cue(cues[place].start, end, *key)
            else:
                place = len(cues)
                cues.append(Cue(start, end, *key))
            ongoing[key] = place
        open_cues = ongoing
    return finish(cues)


def _wvtt_cues(sample: bytes) -> Iterator[tuple[str, str, str]]:
    """Text, settings and identifier of every cue box of a sample."""
    for kind, payload in _boxes(sample):
        if kind != b"vttc":
            continue
        parts = {k: v.decode("utf-8", errors="replace").replace("\0", "\ufffd") for k, v in _boxes(payload)}
        text = join_lines(parts.get(b"payl", "")).replace("-->", "--&gt;")
        settings, identifier = (" ".join(parts.get(k, "").replace("-->", "").split()) for k in (b"sttg", b"iden"))
        yield text, settings, identifier


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while len(data) - at >= 8:
        size, kind = struct.unpack_from(">I4s", data, at)
        if size < 8 or size > len(data) - at:
            raise malformed("a box in a text sample does not fit where it stands")
        yield kind, data[at + 8 : at + size]
        at += size
