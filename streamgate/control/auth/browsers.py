"""Browsers that nobody is signed in with: a cookie that only we can make, so that nobody is many at will."""

from __future__ import annotations

import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode

_ID = 16
_MAC = 8
_LENGTH = 32  # characters of both


def fresh(secret: bytes) -> str:
    """A cookie for a browser that was never here."""
    return _write(secrets.token_bytes(_ID), secret)


def is_ours(text: str | None, secret: bytes) -> bool:
    """Whether a cookie was made here."""
    if text is None or len(text) != _LENGTH or not text.isascii():
        return False
    try:
        id = urlsafe_b64decode(text)[:_ID]
    except ValueError:
        return False
    return hmac.compare_digest(_write(id, secret).encode(), text.encode())


def _write(id: bytes, secret: bytes) -> str:
    return urlsafe_b64encode(id + hmac.digest(secret, b"browser\0" + id, "sha256")[:_MAC]).decode()
