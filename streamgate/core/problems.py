"""Errors as ``application/problem+json`` (RFC 9457), whichever process answers."""

from __future__ import annotations

import json
from http import HTTPStatus

from streamgate.errors import CODES, StreamGateError

MEDIA_TYPE = "application/problem+json"


def body(error: StreamGateError, status: int | None = None, **members: object) -> bytes:
    """The problem as JSON, with further ``members``. Its type is about:blank, so its title is the status's; ``code`` says more."""
    status = status or error.status
    problem = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": error.code,
        "detail": error.detail if error.code != "internal" else CODES["internal"].meaning,
        "retryable": error.retryable,
        **members,
    }
    return json.dumps(problem, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
