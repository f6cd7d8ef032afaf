"""The built pages, out of the package's data into a fixed table: no path of a request ever reaches the file system."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from importlib.resources import files
from pathlib import PurePosixPath

from edge import entries
from edge.assets import Opened
from edge.entries import Entry
from streamgate.errors import StreamGateError
from streamgate.storage.description import PICTURES

# Media, manifests and pages' own data may come from any origin; scripts only from here. Players make blob: workers and sources.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "worker-src 'self' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "media-src * blob: data:",
        "connect-src *",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
    )
)
"""The page may be shown in frames of this origin alone; see :func:`embedded`."""
MAX_POSTER = 4 * 1024 * 1024
NOT_BUILT = "The pages are not built. Build them with `make setup`; the media is served without them.\n"


def embedded(page: Entry, origins: Sequence[str]) -> Entry:
    """``page`` as pages of these ``origins`` may show it in a frame, too."""
    policy = page.headers.get("Content-Security-Policy")
    if policy is None or not origins:
        return page
    return replace(page, headers={**page.headers, "Content-Security-Policy": " ".join((policy, *origins))})


def poster(opened: Opened, fresh: str) -> Entry:
    """An asset's poster; blocking. Raises ``not_found``, ``asset_description`` for one that is too large, ``source_*``, ``origin_*``."""
    picture = opened.asset.poster
    if picture is None:
        raise StreamGateError("not_found")
    if picture.size > MAX_POSTER:
        raise StreamGateError("asset_description", f"the poster has more than {MAX_POSTER} bytes")
    body = picture.read(0, picture.size)
    kind = PICTURES[PurePosixPath(picture.name).suffix.lower()]
    tag = blake2b(body, digest_size=12).hexdigest()
    return Entry(kind, tag, fresh, body, generation=opened.generation)


def load() -> dict[str, Entry]:
    """All pages by path, as the manifest of the build lists them; blocking. Without a build, a text that says how to make one."""
    folder = files("streamgate") / "web"
    listing = folder / "manifest.json"
    if not listing.is_file():
        return {"/": entries.text(NOT_BUILT, "text/plain; charset=utf-8", "no-cache")}
    pages = {}
    for item in json.loads(listing.read_text("utf-8"))["files"]:
        path, media_type = item["path"], item["type"]
        headers = {"Content-Security-Policy": POLICY} if media_type.startswith("text/html") else {}
        pages["/" if path == "index.html" else f"/{path}"] = Entry(
            media_type=media_type,
            tag=item["sha256"][:24],
            cache_control=entries.IMMUTABLE if item["immutable"] else "no-cache",
            body=(folder / path).read_bytes(),
            compressible=True,
            headers=headers,
        )
    return pages
