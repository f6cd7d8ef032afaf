"""Three-valued logic (Kleene's strong one): True, False, and None for unknown."""

from __future__ import annotations

from collections.abc import Iterable

Logic = bool | None


def negated(answer: Logic) -> Logic:
    """Not."""
    return None if answer is None else not answer


def every(answers: Iterable[Logic]) -> Logic:
    """And: no if one is, else unknown if one is; yes of nothing."""
    found: Logic = True
    for answer in answers:
        if answer is False:
            return False
        if answer is None:
            found = None
    return found


def some(answers: Iterable[Logic]) -> Logic:
    """Or: yes if one is, else unknown if one is; no of nothing."""
    return negated(every(negated(answer) for answer in answers))
