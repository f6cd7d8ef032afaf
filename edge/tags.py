"""Cache tags: by what else than its address an object can be called, here (a purge) and in caches downstream (Cache-Tag).

``asset:film``, ``rendition:v540-0123456789abcdef`` and ``kind:segment`` follow from the address; the others are those that
``asset.toml`` gives the asset, which have no colon.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from edge import routes
from edge.routes import Target
from streamgate.errors import StreamGateError

FIELD = "Cache-Tag"
"""The response header field: tags with commas between, as content delivery networks read it."""

_TAG = re.compile(
    r"(?:asset:|rendition:|kind:)?[A-Za-z0-9][A-Za-z0-9._-]{0,63}|asset:[A-Za-z0-9][A-Za-z0-9._-]{0,63}~preview"
)


def is_tag(text: str) -> bool:
    """Whether it can be a tag."""
    return _TAG.fullmatch(text) is not None


def of_target(target: Target) -> tuple[str, ...]:
    """The tags that follow from an address."""
    names = (target.rendition, target.audio)
    parts = (f"rendition:{name}" for name in names if name and name != "none")
    return (*of_asset(target.asset), *parts, f"kind:{target.route.name}")


def of_path(path: str) -> tuple[str, ...]:
    """As :func:`of_target`, of a canonical path; of one that is no address only the asset's, if there is one."""
    try:
        return of_target(routes.match(path))
    except StreamGateError:
        asset = routes.asset_of(path)
        return of_asset(asset) if asset else ()


def of_asset(asset: str) -> tuple[str, ...]:
    """A preview is called by its asset's tag, too: who purges the one means both."""
    of = routes.previewed(asset)
    return (f"asset:{asset}", f"asset:{of}") if of else (f"asset:{asset}",)


def field(target: Target, given: Iterable[str]) -> str:
    """Cache-Tag's value for an answer; ``given`` are the tags in the asset's description."""
    return ",".join((*of_target(target), *given))
