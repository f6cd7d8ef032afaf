"""Reading SubRip (.srt). There is no standard; this is what SubRip writes and players understand."""

from __future__ import annotations

import re

from .cue import Cue, check_size, finish, join_lines, malformed

_TIME = r"(\d{1,4}):(\d{1,2}):(\d{1,2})(?:[,.:](\d{1,3}))?"
# Old files have coordinates behind the times.
_TIMING = re.compile(rf"[ \t]*{_TIME}[ \t]*-->[ \t]*{_TIME}(?:[ \t].*)?", re.ASCII)
_TIMING_CHARACTERS = frozenset("0123456789:,.-> \t")
_MARKUP = re.compile(r"<(/?)([A-Za-z]+)\b[^<>\n]*>|\{\\[^{}\n]*\}|&(?:amp|lt|gt|nbsp|lrm|rlm);|[&<>]|\n")
_KEPT = ("b", "i", "u")
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# SubStation's numeric keypad: where {\an…} puts the text.
_PLACE = re.compile(r"\{\\an([1-9])[^{}\n]*\}")
_ROWS = ("", "line:50%", "line:0")
_COLUMNS = ("align:left", "", "align:right")


def parse_srt(data: bytes) -> list[Cue]:
    """The cues of a SubRip file, by start; times in ms.

    UTF-8, UTF-16 with a byte order mark, or else Windows-1252 (what "latin-1" means in practice). Bold, italic and
    underline are kept, ``{\\an8}`` becomes cue settings, all other markup is dropped.
    Raises ``subtitle_malformed``: beyond the limits, or no cue in it.
    """
    check_size(len(data))
    lines = _decode(data).replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd").split("\n")
    cues: list[Cue] = []
    timing: re.Match[str] | None = None
    first = 0
    for n, line in enumerate([*lines, None]):
        match = _TIMING.fullmatch(line) if line and "-->" in line else None
        if line is not None and not match and not _is_bad_timing(line):
            continue
        if timing:
            cues.append(_cue(timing, lines[first : _text_end(lines, first, n)]))
        timing, first = match, n + 1
    if not cues and any(line.strip() for line in lines):
        raise malformed("there is no cue with a valid timing line")
    return finish(cues)


def _decode(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _is_bad_timing(line: str) -> bool:
    """Whether a line is nobody's text, but a timing line that cannot be read; its cue is left out."""
    return "-->" in line and any(map(str.isdigit, line)) and _TIMING_CHARACTERS.issuperset(line)


def _text_end(lines: list[str], first: int, following: int) -> int:
    """Where the text of a cue ends, whose next timing line is at ``following``: before that one's number."""
    if following < len(lines) and following > first and lines[following - 1].strip().isdecimal():
        return following - 1
    return following


def _cue(timing: re.Match[str], lines: list[str]) -> Cue:
    text = "\n".join(lines).strip()
    place = _PLACE.search(text)
    settings = ""
    if place:
        row, column = divmod(int(place[1]) - 1, 3)
        settings = " ".join(filter(None, (_ROWS[row], _COLUMNS[column])))
    return Cue(_ms(timing, 1), _ms(timing, 5), join_lines(_markup(text)), settings)


def _ms(match: re.Match[str], group: int) -> int:
    hours, minutes, seconds, fraction = (int(match[n] or 0) for n in range(group, group + 4))
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + fraction


def _markup(text: str) -> str:
    """SubRip's text as WebVTT cue text: known tags kept and balanced, other markup dropped, the rest escaped."""
    opened: list[str] = []

    def replace(match: re.Match[str]) -> str:
        token = match[0]
        if token[0] == "\n" or (token[0] == "&" and len(token) > 1):
            return token
        if len(token) == 1:
            return _ESCAPES[token]
        name = (match[2] or "").lower()
        if name == "br":
            return "\n"
        if name not in _KEPT:
            return ""
        if not match[1]:
            opened.append(name)
            return f"<{name}>"
        if name not in opened:
            return ""
        closed = ""
        while True:
            last = opened.pop()
            closed += f"</{last}>"
            if last == name:
                return closed

    marked = _MARKUP.sub(replace, text)
    return marked + "".join(f"</{name}>" for name in reversed(opened))
