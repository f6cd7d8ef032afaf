"""Settings of processes, sockets and connections."""

from __future__ import annotations

import os
from pathlib import Path

from streamgate.core.settings.section import Section, setting
from streamgate.errors import StreamGateError


class ServerSettings(Section):
    """The listening sockets, the processes that serve them, and their connections."""

    host: str = setting(
        "127.0.0.1",
        'Address to listen on. 127.0.0.1 is reached from this machine only, 0.0.0.0 from everywhere by IPv4, "::" by both.',
    )
    port: int = setting(8080, "TCP port to listen on. 0 lets the system choose a free one.", ge=0, le=65535)
    listen: tuple[str, ...] = setting(
        (), "Further addresses to listen on: 192.0.2.1:8080, [2001:db8::1]:8080, or unix:/run/streamgate.sock."
    )
    workers: int = setting(
        0,
        "Processes that serve, each with listening sockets of its own. 0: one a core.",
        unit="processes",
        ge=0,
        le=256,
    )
    hang_timeout: float = setting(
        30.0,
        "Time without a sign of life, of which there is one a second, after which a worker is killed and replaced. 0: never.",
        unit="seconds",
        ge=0,
        le=3600,
    )
    backlog: int = setting(
        1024, "Connections that may wait to be accepted; the kernel refuses more.", unit="connections", ge=1, le=65535
    )
    max_connections: int = setting(
        10_000,
        "Open connections, shared out to the workers; a further one is answered 503 and closed. "
        "Of thousands at once some are closed unanswered.",
        unit="connections",
        ge=1,
        le=1_000_000,
    )
    max_request_line: int = setting(
        8190, "Longest request line; longer ones are answered 431.", unit="bytes", ge=256, le=65536
    )
    max_header_field: int = setting(
        8190, "Longest header field; longer ones are answered 431.", unit="bytes", ge=256, le=65536
    )
    max_head: int = setting(
        65536, "Longest head of a request, all in all; longer ones are answered 431.", unit="bytes", ge=1024, le=2**20
    )
    max_header_fields: int = setting(
        100, "Header fields of a request; more are answered 431.", unit="fields", ge=10, le=1000
    )
    head_timeout: float = setting(
        10.0,
        "Time for a request's head to arrive once it has begun; ends clients that dribble.",
        unit="seconds",
        ge=0.1,
        le=300,
    )
    keepalive_timeout: float = setting(
        75.0,
        "Time an idle connection is kept. Longer than that of a balancer in front.",
        unit="seconds",
        ge=0.1,
        le=3600,
    )
    send_timeout: float = setting(
        60.0,
        "Time in which a client must take the next 256 KiB; frees what stalled clients hold.",
        unit="seconds",
        ge=0.1,
        le=3600,
    )
    unsent: int = setting(
        262_144,
        "Bytes of an answer that the kernel takes ahead of what the network has room for (TCP_NOTSENT_LOWAT). 0: as many as it likes.",
        unit="bytes",
        ge=0,
        le=2**30,
    )
    send_buffer: int = setting(
        0, "Size of a connection's send buffer (SO_SNDBUF). 0: the kernel finds it.", unit="bytes", ge=0, le=2**30
    )
    trusted_proxies: tuple[str, ...] = setting(
        (), "Networks of proxies in front, whose Forwarded, X-Forwarded-For and PROXY headers are believed: 10.0.0.0/8."
    )
    proxy_protocol: bool = setting(
        False, "Connections from trusted proxies begin with a PROXY header, version 1 or 2; one without is refused."
    )
    data: str = setting(
        "",
        "Folder for converted containers and the machine's state. Empty: streamgate in $XDG_CACHE_HOME, or in ~/.cache.",
    )

    @property
    def data_folder(self) -> Path:
        """The folder that ``data`` means; raises ``config_invalid`` where there is none to take."""
        if self.data:
            return Path(self.data)
        try:
            return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamgate"
        except RuntimeError:
            raise StreamGateError("config_invalid", "server.data: this user has no home folder, so name one") from None


class DrainSettings(Section):
    """How the server stops, and how a reload takes its place."""

    delay: float = setting(
        0.0,
        "Time after SIGTERM in which it serves on while not being ready: a balancer's chance to notice.",
        unit="seconds",
        ge=0,
        le=300,
    )
    idle: float = setting(
        10.0,
        "Time after a reload in which idle connections may bring one more request to the processes that leave. As long as a head may take.",
        unit="seconds",
        ge=0,
        le=300,
    )
    deadline: float = setting(
        30.0, "Time for answers under way to finish; then they are cut.", unit="seconds", ge=0, le=3600
    )


class TlsSettings(Section):
    """Encrypted connections. The certificate is read again by a reload (SIGHUP)."""

    listen: tuple[str, ...] = setting((), "Addresses that speak TLS 1.2 or newer: 0.0.0.0:8443. Empty: none does.")
    certificate: str = setting("", "File with the certificate and those between it and its authority, PEM.")
    key: str = setting(
        "", "File with the private key, PEM, without a password. Empty: it is in the certificate's file."
    )


class LimitSettings(Section):
    """How much one client may ask for. The whole node counts together, whichever process a connection is with."""

    connections_per_address: int = setting(
        1024,
        "Connections from one address at once, of each process; beyond them new ones are closed.",
        unit="connections",
        ge=1,
        le=1_000_000,
    )
    requests_per_address: float = setting(
        10_000.0,
        "Requests from one address; beyond them the answer is 429. A balancer in front counts as one unless it is trusted.",
        unit="a second",
        ge=0.001,
        le=1e9,
    )
    burst_per_address: int = setting(
        20_000, "Requests from one address at once.", unit="requests", ge=1, le=1_000_000_000
    )
    requests_per_token: float = setting(
        200.0, "Requests with one token; beyond them the answer is 429.", unit="a second", ge=0.001, le=1e9
    )
    burst_per_token: int = setting(2000, "Requests with one token at once.", unit="requests", ge=1, le=1_000_000_000)
    purges: float = setting(
        30.0,
        "Purges that operators ask this node for; beyond them the answer is 429. Each is an event for the whole site.",
        unit="a second",
        ge=0.001,
        le=1e6,
    )
    burst_purges: int = setting(1000, "Such purges at once.", unit="purges", ge=1, le=1_000_000)
    tracked: int = setting(
        65_536, "Addresses, and tokens, that are counted at once; 16 bytes each.", unit="entries", ge=1, le=2**26
    )
    bytes_per_second: int = setting(
        0, "How fast one connection is served. 0: as fast as it takes.", unit="bytes a second", ge=0, le=2**40
    )
