"""Whose trace a piece of work belongs to: a ``traceparent`` (W3C Trace Context section 3.2) that onward requests carry on."""

from __future__ import annotations

import re
from contextvars import ContextVar

_PARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_current: ContextVar[str] = ContextVar("traceparent", default="")


def follow(traceparent: str) -> None:
    """Let the work of this task, and of those that it begins, belong to the trace; to none where it is no traceparent."""
    _current.set(traceparent if _PARENT.fullmatch(traceparent) else "")


def current() -> str:
    """The traceparent, "" where there is none."""
    return _current.get()
