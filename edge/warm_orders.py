"""What is to be warmed, and how far that is: what a node's parent, which makes nothing itself, must know of warm-ups."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from edge.control import Message
from streamgate.errors import StreamGateError

_MOST_RENDITIONS = 256


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be warmed: an ``asset``, of it these ``renditions`` (all, if there are none), their names or what is in front
    of the dash. ``manifests``: playlists and MPD too. ``limit``: segments of each rendition, from the first on; 0: all."""

    asset: str
    renditions: tuple[str, ...] = ()
    manifests: bool = True
    limit: int = 0

    @classmethod
    def of(cls, told: Any) -> Order:
        """The order that JSON tells of; raises ``request_malformed``."""
        try:
            given = {"renditions": [], "manifests": True, "limit": 0, **told}
            order = cls(
                given.pop("asset"), tuple(given.pop("renditions") or ()), given.pop("manifests"), given.pop("limit")
            )
            names = all(isinstance(name, str) for name in (order.asset, *order.renditions))
            sane = type(order.manifests) is bool and type(order.limit) is int and order.limit >= 0
            if names and sane and not given and len(order.renditions) <= _MOST_RENDITIONS:
                return order
        except (KeyError, TypeError, ValueError, AttributeError):
            pass
        raise StreamGateError("request_malformed", "wanted: asset, and renditions (a list), manifests, limit")


@dataclass(slots=True)
class Progress:
    """How far a warm-up is: of ``objects`` ``done``, and what became of these; ``bytes`` of those that are there now.

    ``ended`` is "" while it goes on, and then why: "done", "stopping", or the code of what went wrong.
    """

    asset: str
    objects: int = 0
    done: int = 0
    bytes: int = 0
    fetched: int = 0
    present: int = 0
    dropped: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    ended: str = ""
    detail: str = ""

    def message(self) -> Message:
        """As JSON can carry it."""
        told = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**told, "failed": dict(self.failed), "seconds": round(self.seconds, 3)}
