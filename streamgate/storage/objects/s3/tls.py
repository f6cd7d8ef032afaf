"""Whom we believe to be the store: the same for what aioboto3 sends and for what we send ourselves."""

from __future__ import annotations

import os
import ssl
from typing import Any

import aiohttp

from streamgate.errors import StreamGateError


def trust(authorities: str) -> ssl.SSLContext:
    """These authorities (a PEM file), else those of AWS_CA_BUNDLE, else the machine's; blocking. Raises ``config_invalid``."""
    file = authorities or os.environ.get("AWS_CA_BUNDLE")
    try:
        return ssl.create_default_context(cafile=file or None)
    except OSError:
        raise StreamGateError("config_invalid", f"{file} holds no certificates of authorities") from None


def checking(trusted: ssl.SSLContext | None) -> Any:
    """The class of aiobotocore's sessions that believe ``trusted``, and nothing else; None: whom AWS's configuration names.

    Its own compares no names, and behind a proxy no certificates: what urllib3 does for botocore, nobody does for it.
    """
    from aiobotocore.httpsession import AIOHTTPSession

    class CheckingSession(AIOHTTPSession):  # type: ignore[misc]
        def _create_connector(self, proxy_url: str | None) -> aiohttp.TCPConnector:
            file = self._verify if isinstance(self._verify, str) else None
            by = trusted or ssl.create_default_context(cafile=file)
            return aiohttp.TCPConnector(limit=self._max_pool_connections, ssl=by, **self._connector_args)

    return CheckingSession
