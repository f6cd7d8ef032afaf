"""The built pages, out of the package's data into a fixed table: no path of a request ever reaches the file system."""

from __future__ import annotations

import json
from importlib.resources import files

from edge import entries
from edge.entries import Entry

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
NOT_BUILT = "The pages are not built. Build them with `make setup`; the media is served without them.\n"


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
