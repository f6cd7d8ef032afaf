"""Settings of the operator's way in, and of what can be purged there."""

from __future__ import annotations

from streamgate.core.settings.section import Section, setting


class AdminSettings(Section):
    """The operator's way in: a Unix socket that only the server's user may open, and an address for other machines."""

    socket: str = setting("", "Its path. Empty: admin-PORT.sock in the folder server.data.")
    listen: str = setting(
        "", "Address that speaks the same over TLS: 10.0.0.5:9443. Needs token_file or client_ca. Empty: none does."
    )
    certificate: str = setting("", "File with the certificate of that address and those up to its authority, PEM.")
    key: str = setting(
        "", "File with its private key, PEM, without a password. Empty: it is in the certificate's file."
    )
    token_file: str = setting(
        "",
        "File with the bearer token that operators send, 32 characters at least, which only its owner may read; read again when it changes.",
    )
    client_ca: str = setting(
        "",
        "PEM file of the authorities whose client certificates are let in. With token_file as well, both are needed.",
    )
    failures: float = setting(
        1.0,
        "Wrong tokens from one address; beyond them it is answered 429, whatever it sends.",
        unit="a second",
        ge=0.001,
        le=1e6,
    )
    failure_burst: int = setting(10, "Wrong tokens from one address at once.", unit="attempts", ge=1, le=1_000_000)
    connections: int = setting(
        64, "Open connections to that address; further ones are closed.", unit="connections", ge=1, le=65536
    )


class PurgeSettings(Section):
    """What was purged, and is not to be served as it was before."""

    keep: int = setting(
        604_800,
        "Time a purge is remembered: a node that was away for less still hears of it.",
        unit="seconds",
        ge=3600,
        le=31_536_000,
    )
    most: int = setting(
        10_000,
        "Purges that are remembered at once; beyond it one is of everything, and takes the place of all.",
        unit="purges",
        ge=16,
        le=1_000_000,
    )
