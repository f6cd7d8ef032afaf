"""What the texts above the renditions tell of, as a digest that is the same on every node: no text is needed for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from fractions import Fraction
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from weakref import WeakKeyDictionary

from streamgate.media.codecs import Codec
from streamgate.media.presentation import Presentation

_PLAIN = (str, int, bytes, Fraction, type(None))
_known: WeakKeyDictionary[Presentation, str] = WeakKeyDictionary()
try:
    _RELEASE = version("streamgate")
except PackageNotFoundError:
    _RELEASE = ""


def fingerprint(presentation: Presentation) -> str:
    """32 hex digits that differ wherever a multivariant playlist or MPD of the asset may; made once for a presentation.

    The names of the renditions promise what lies below them. Beside them counts whatever else is said of one in plain
    values (languages, labels, what is default or forced, codecs), their order, and who writes the texts.
    """
    known = _known.get(presentation)
    if known is None:
        state = blake2b(_RELEASE.encode(), digest_size=16)
        for value in _told(presentation):
            state.update(b"\0" + value.encode("utf-8", "surrogatepass"))
        known = _known[presentation] = state.hexdigest()
    return known


def _told(presentation: Presentation) -> Iterator[str]:
    yield from _plain(presentation)
    for rendition in (*presentation.video, *presentation.audio, *presentation.text):
        yield from _plain(rendition)
        codec = getattr(rendition, "codec", None)
        if isinstance(codec, Codec):
            yield f"{codec!r}"


def _plain(thing: Any) -> Iterator[str]:
    """Name and value of each field that is no array and no object; names come first, so none is taken for another."""
    yield type(thing).__name__
    for field in fields(thing):
        value = getattr(thing, field.name)
        if isinstance(value, _PLAIN):
            yield f"{field.name}={value!r}"
