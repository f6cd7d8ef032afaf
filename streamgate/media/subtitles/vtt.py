"""Reading and writing WebVTT (W3C WebVTT sections 4 and 6; segments: RFC 8216 section 3.5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from .cue import Cue, check_size, finish, malformed

_TIME = r"(?:(\d{1,6}):)?([0-5]\d):([0-5]\d)\.(\d{3})"
_TIMING = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s+(.*))?", re.ASCII)
# Times inside a cue's text, as in karaoke (section 4.2.2).
_INNER_TIME = re.compile(rf"<{_TIME}>", re.ASCII)
_PERCENTAGE = r"\d{1,3}(?:\.\d+)?%"
_SETTING = re.compile(
    rf"vertical:(?:rl|lr)|line:(?:-?\d+(?:\.\d+)?|{_PERCENTAGE})(?:,(?:start|center|end))?"
    rf"|position:{_PERCENTAGE}(?:,(?:line-left|center|line-right))?|size:{_PERCENTAGE}"
    r"|align:(?:start|center|end|left|right)|region:\S+",
    re.ASCII,
)
_ARROW = "-->"
_TIMESTAMP_MODULUS = 1 << 33  # of MPEG-2 systems


def parse_vtt(data: bytes) -> list[Cue]:
    """The cues of a WebVTT file, by start; times in ms.

    As the standard's own parser does, a cue with a bad timing line is left out, and so are unknown settings.
    Raises ``subtitle_malformed``: no WEBVTT signature, not UTF-8, beyond the limits, or no cue of it can be read.
    """
    check_size(len(data))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise malformed(f"WebVTT must be UTF-8: {error.reason} at byte {error.start}") from None
    lines = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd").split("\n")
    if re.fullmatch(r"WEBVTT(?:[ \t].*)?", lines[0]) is None:
        raise malformed("the file does not begin with WEBVTT")
    found: list[tuple[int, int, str, str, str]] = []
    styles: list[str] = []
    bad = 0
    for block in _blocks(lines):
        arrow = next((n for n, line in enumerate(block[:2]) if _ARROW in line), None)
        if arrow is None:
            if not found and block[0].rstrip() in ("STYLE", "REGION"):
                styles.append("\n".join(block) + "\n\n")
            continue
        timing = _TIMING.fullmatch(block[arrow])
        if timing is None:
            bad += 1
            continue
        # Old drafts said "middle".
        words = (timing[9] or "").replace("align:middle", "align:center").split()
        settings = " ".join(word for word in words if _SETTING.fullmatch(word))
        identifier = block[0] if arrow else ""
        found.append((_ms(timing, 1), _ms(timing, 5), "\n".join(block[arrow + 1 :]), settings, identifier))
    if bad and not found:
        raise malformed("no cue has a valid timing line")
    sheet = "".join(styles)
    return finish([Cue(*cue, styles=sheet) for cue in found])


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    """The blocks behind the header (section 6.1): separated by empty lines, or begun by a timing line."""
    block: list[str] = []
    header = timed = False
    for line in lines[1:]:
        arrow = _ARROW in line
        if not header:
            # Metadata behind the signature, such as X-TIMESTAMP-MAP, up to an empty line.
            header = not line or arrow
            if not arrow:
                continue
        if block and (not line or (arrow and (timed or len(block) > 1))):
            yield block
            block, timed = [], False
        if line:
            block.append(line)
            timed |= arrow
    if block:
        yield block


def _ms(match: re.Match[str], group: int) -> int:
    hours, minutes, seconds, fraction = (int(match[n] or 0) for n in range(group, group + 4))
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + fraction


def format_time(ms: int) -> str:
    """A WebVTT timestamp with hours; times below zero are shown as zero."""
    seconds, fraction = divmod(max(ms, 0), 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{fraction:03}"


def write_segment(cues: Iterable[Cue], *, start_ms: int, end_ms: int, mpegts: int) -> bytes:
    """A WebVTT segment: every cue that touches [start_ms, end_ms), in full and with its own times.

    ``mpegts`` is the 90 kHz time of the media clock at the cues' time 0; it is taken modulo 2^33.
    """
    touching = [cue for cue in cues if cue.start < end_ms and cue.end > start_ms]
    stamp = f"X-TIMESTAMP-MAP=MPEGTS:{mpegts % _TIMESTAMP_MODULUS},LOCAL:00:00:00.000\n"
    return _write("WEBVTT\n" + stamp, touching, 0)


def write_whole(cues: Iterable[Cue], *, shift_ms: int = 0) -> bytes:
    """All cues as one WebVTT file, each ``shift_ms`` later; what would end at or before 0 is left out."""
    return _write("WEBVTT\n", [cue for cue in cues if cue.end + shift_ms > 0], shift_ms)


def _write(head: str, cues: list[Cue], shift: int) -> bytes:
    # Styles belong to files: once each, in the order of their first cue.
    styles = "".join(dict.fromkeys(cue.styles for cue in cues))
    return "".join([head, "\n", styles, *(_cue(cue, shift) for cue in cues)]).encode()


def _cue(cue: Cue, shift: int) -> str:
    text = cue.text
    if shift:
        text = _INNER_TIME.sub(lambda match: f"<{format_time(_ms(match, 1) + shift)}>", text)
    timing = f"{format_time(cue.start + shift)} --> {format_time(cue.end + shift)}"
    settings = " " + cue.settings if cue.settings else ""
    identifier = cue.identifier + "\n" if cue.identifier else ""
    return f"{identifier}{timing}{settings}\n{text}\n\n"
