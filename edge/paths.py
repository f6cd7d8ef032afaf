"""The one spelling of a path.

A path names an entry of the cache, here and in every cache and balancer around us, so each path has exactly one spelling,
and every other spelling is refused instead of being repaired (RFC 3986 sections 3.3 and 6.2.2).
"""

from __future__ import annotations

import re

from streamgate.errors import StreamGateError

MAX_PATH = 1024

# pchar without percent-encodings (RFC 3986 section 3.3), and the slash between segments
_PLAIN = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:@/]*")
_ESCAPE = re.compile(r"%([0-9A-F]{2})")
_NEVER_ESCAPED = frozenset(b"-._~!$&'()*+,;=:@")
# A run of base64url (RFC 4648 section 5) that may be a token, or a good part of one
_SECRET = re.compile(r"[A-Za-z0-9_-]{40,}")
_SCHEME = re.compile(r"https?://[^/?#]*", re.IGNORECASE)


def canonical_path(target: str) -> str:
    """The path of a request target (origin or absolute form, RFC 9112 section 3.2), without its query.

    Raises ``path_malformed`` for dot segments, empty segments, backslashes, control characters, escaped slashes,
    escapes that need not be there, lower-case or broken escapes, escapes that are no UTF-8, and overlong paths.
    """
    path = _SCHEME.sub("", target, count=1) if target[:1] != "/" else target
    path = path.partition("?")[0] or "/"
    if len(path) > MAX_PATH:
        raise StreamGateError("path_malformed", f"longer than {MAX_PATH} characters")
    if path[0] != "/":
        raise StreamGateError("path_malformed", "does not begin with a slash")
    if not _PLAIN.fullmatch(_ESCAPE.sub("", path)):
        raise StreamGateError("path_malformed", "holds a character or an escape that has no place in a path")
    if "%" in path:
        _check_escapes(path)
    if "//" in path or any(segment in (".", "..") for segment in path.split("/")):
        raise StreamGateError("path_malformed", "holds an empty segment or a dot segment")
    return path


def split_token(target: str) -> tuple[str, str]:
    """The token of a target ``/t/{token}/v/…`` ("" where there is none) and the canonical path behind it.

    Raises ``path_malformed``, also for anything behind a token that is not below ``/v/``: a second token among it.
    """
    path = target if target[:1] == "/" else _SCHEME.sub("", target, count=1)
    if not path.startswith("/t/"):
        return "", canonical_path(target)
    token, slash, behind = path[3:].partition("?")[0].partition("/")
    if not token or not slash or not behind.startswith("v/"):
        raise StreamGateError("path_malformed", "behind a token in the path there is /v/ and nothing else")
    return token, canonical_path(f"/{behind}")


def without_secrets(path: str) -> str:
    """A path that nobody knows, as logs may have it: with a token in a place where none belongs, that place is told alone."""
    return _SECRET.sub("…", path)


def _check_escapes(path: str) -> None:
    raw = bytearray()
    for escape in _ESCAPE.findall(path):
        byte = int(escape, 16)
        if byte < 0x20 or byte == 0x7F or byte in b"/\\":
            raise StreamGateError("path_malformed", f"%{escape} has no place in a path")
        if byte in _NEVER_ESCAPED or chr(byte).isascii() and chr(byte).isalnum():
            raise StreamGateError("path_malformed", f"%{escape} need not be escaped")
    position = 0
    for match in _ESCAPE.finditer(path):
        raw += path[position : match.start()].encode() + bytes([int(match[1], 16)])
        position = match.end()
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        raise StreamGateError("path_malformed", "its escapes are not UTF-8") from None
