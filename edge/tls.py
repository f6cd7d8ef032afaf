"""TLS of the edge: versions, protocols, and the certificate, which a reload reads anew."""

from __future__ import annotations

import os
import ssl

from streamgate.core.settings import TlsSettings
from streamgate.errors import StreamGateError


def context(settings: TlsSettings) -> ssl.SSLContext | None:
    """What connections to ``tls.listen`` are opened with; None where there is no such address.

    TLS 1.2 or newer (RFC 8996), HTTP/1.1 only. Raises ``config_invalid`` for a certificate that cannot be used.
    """
    if not settings.listen:
        return None
    if not settings.certificate:
        raise StreamGateError("config_invalid", "tls.listen needs tls.certificate")
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    # Renegotiation and compression let a client ask for work; both are gone in TLS 1.3 (RFC 8446 section 1.2).
    made.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    try:
        made.load_cert_chain(settings.certificate, settings.key or None, password=_no_password)
    except (OSError, ssl.SSLError) as error:
        reason = (
            os.strerror(error.errno)
            if isinstance(error, FileNotFoundError | PermissionError) and error.errno
            else "unusable"
        )
        raise StreamGateError("config_invalid", f"tls.certificate or tls.key: {reason}") from error
    return made


def _no_password() -> str:
    """A key with a password would make the server wait for somebody to type it."""
    raise ssl.SSLError("the key has a password")
