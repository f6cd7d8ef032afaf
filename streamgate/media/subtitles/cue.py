"""What all subtitle formats are turned into: WebVTT cues; and the limits on what is read."""

from __future__ import annotations

from dataclasses import dataclass

from streamgate.errors import StreamGateError

MAX_BYTES = 8 << 20
MAX_CUES = 100_000


@dataclass(frozen=True, slots=True)
class Cue:
    """One subtitle: shown from ``start`` to ``end`` (ms of the source's own time).

    ``text`` is WebVTT cue text (escaped; lines separated by a line feed, none of them empty), ``settings`` and
    ``identifier`` are as in WebVTT. ``styles`` are the STYLE and REGION blocks of the file that the cue is from, each
    followed by an empty line; all cues of a file share them.
    """

    start: int
    end: int
    text: str
    settings: str = ""
    identifier: str = ""
    styles: str = ""


def malformed(detail: str) -> StreamGateError:
    """The error of every parser here: ``subtitle_malformed`` with what was wrong."""
    return StreamGateError("subtitle_malformed", detail)


def check_size(size: int) -> None:
    """Refuse more than ``MAX_BYTES``."""
    if size > MAX_BYTES:
        raise malformed(f"the subtitles have {size} bytes, more than {MAX_BYTES}")


def finish(cues: list[Cue]) -> list[Cue]:
    """The cues that can be shown, in the order of their times; raises when there are more than ``MAX_CUES``."""
    if len(cues) > MAX_CUES:
        raise malformed(f"there are more than {MAX_CUES} cues")
    shown = [cue for cue in cues if cue.end > cue.start and cue.text.strip()]
    return sorted(shown, key=lambda cue: (cue.start, cue.end))


def escape(text: str) -> str:
    """Plain text as WebVTT cue text (W3C WebVTT section 4.2.2)."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def join_lines(text: str) -> str:
    """Cue text without its empty lines, which would end the cue."""
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())
