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
        raise _unusable(error) from error
    return made


def keep(settings: TlsSettings) -> tuple[int, int]:
    """Descriptors of memory with what the files of the certificate and its key hold now; -1 for one that there is not.

    A worker that replaces a dead one serves with these, whatever has become of the files. Raises ``config_invalid``.
    """
    if not settings.listen:
        return -1, -1
    kept: list[int] = []
    try:
        for name, path in (("certificate", settings.certificate), ("key", settings.key)):
            kept.append(_keep(f"streamgate-{name}", path) if path else -1)
    except OSError as error:
        for number in kept:
            os.close(number)
        raise _unusable(error) from error
    return kept[0], kept[1]


def kept(settings: TlsSettings, certificate: int, key: int) -> TlsSettings:
    """The settings with what :func:`keep` has kept in the place of the files."""
    paths = {"certificate": certificate, "key": key}
    return settings.model_copy(
        update={name: f"/proc/self/fd/{number}" for name, number in paths.items() if number >= 0}
    )


def _keep(name: str, path: str) -> int:
    with open(path, "rb") as file:
        held = file.read()
    memory = os.memfd_create(name)
    with open(memory, "wb", closefd=False) as file:
        file.write(held)
    return memory


def _unusable(error: OSError) -> StreamGateError:
    missing = isinstance(error, FileNotFoundError | PermissionError) and error.errno
    reason = os.strerror(error.errno or 0) if missing else "unusable"
    return StreamGateError("config_invalid", f"tls.certificate or tls.key: {reason}")


def _no_password() -> str:
    """A key with a password would make the server wait for somebody to type it."""
    raise ssl.SSLError("the key has a password")
