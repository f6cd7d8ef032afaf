"""Regular expressions of tokens, by RE2: linear time and bounded memory whatever they say, and they match the whole of a text."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

import re2

from streamgate.core.settings import ConditionSettings


class _Pattern(Protocol):
    def fullmatch(self, text: bytes) -> object: ...


class Patterns:
    """Compiled ones, the latest that were asked for. One that is not taken is remembered as such."""

    def __init__(self, settings: ConditionSettings) -> None:
        self._settings = settings
        self._kept: OrderedDict[str, _Pattern | None] = OrderedDict()
        self._options = re2.Options()
        self._options.max_mem = settings.pattern_memory
        self._options.never_capture = True
        self._options.log_errors = False  # a token is nothing for a log

    def matches(self, pattern: str, text: str) -> bool | None:
        """Whether ``pattern`` matches all of ``text``; None where one of them is too long or the pattern none of RE2."""
        encoded = text.encode()
        if len(pattern) > self._settings.pattern_length or len(encoded) > self._settings.text_length:
            return None
        compiled = self._compiled(pattern)
        return None if compiled is None else compiled.fullmatch(encoded) is not None

    def _compiled(self, pattern: str) -> _Pattern | None:
        if pattern in self._kept:
            self._kept.move_to_end(pattern)
            return self._kept[pattern]
        compiled: _Pattern | None = None
        try:
            compiled = re2.compile(pattern, self._options)
        except re2.error:
            pass
        while len(self._kept) >= self._settings.patterns:
            self._kept.popitem(last=False)
        self._kept[pattern] = compiled
        return compiled
