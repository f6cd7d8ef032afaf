"""Which pages may play an asset: ``embed_origins`` of its policy."""

from __future__ import annotations

from collections.abc import Sequence


def allows(origins: Sequence[str], origin: str | None, own: str = "") -> bool:
    """Whether a page of ``origin`` may play an asset of which these ``origins`` are listed; with none listed all may.

    ``origin``: the request's Origin field, None where it has none, as all but browsers, and pages of the node's ``own``
    origin (``scheme://host[:port]``), may leave it out. ``https://*.example.com`` lists all below example.com, but not it.
    Ports are compared as they are written: an origin has none where it is its scheme's (the Fetch standard, section 3.2).
    """
    if not origins or origin is None:
        return True
    asked = origin.lower()
    return bool(own) and asked == own.lower() or any(_fits(listed.lower(), asked) for listed in origins)


def _fits(listed: str, asked: str) -> bool:
    scheme, wild, below = listed.partition("://*.")
    if not wild:
        return listed == asked
    beginning = f"{scheme}://"
    name = asked.removeprefix(beginning)
    return asked.startswith(beginning) and name.endswith(f".{below}") and len(name) > len(below) + 1
