"""The head of an HTTP/1.1 request, parsed strictly; the hot path uses it from C, tests and fuzzers from here."""

from typing import Literal

from typing_extensions import Buffer

VERDICTS: tuple[str, ...]

_Verdict = Literal["incomplete", "plain", "other", "body", "malformed", "too large"]

def parse_head(
    data: Buffer, *, line: int = 8190, field: int = 8190, fields: int = 100, head: int = 65536
) -> tuple[_Verdict, dict[str, bytes | int | str | bool | None]]:
    """What the head at the start of ``data`` is (RFC 9112), and what the hot path reads of it.

    "plain": a GET or HEAD for the hot path; "other": a complete head without a body, for others; "body": what follows it is not
    (only) another head; "malformed": to be answered 400; "too large": 431. Limits are in bytes: of the request line, of a
    field's line, of all; and in fields. A head is refused as soon as its first fault is there.

    The second value is empty unless the head is complete: ``size`` in bytes, ``method`` ("" unless GET or HEAD),
    ``close``, and what fields and parts of the request line say; None where they are absent.
    """

def select_range(field: bytes, size: int) -> tuple[Literal["whole", "part", "unsatisfiable"], int, int]:
    """What a Range field asks of ``size`` bytes: [first, end) (RFC 9110 section 14.1.2); one range or the whole."""

def names_tag(field: bytes, tag: bytes) -> bool:
    """Whether If-None-Match is "*" or names ``tag``, with its quotes, by weak comparison (RFC 9110 section 13.1.2)."""
