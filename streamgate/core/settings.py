"""The one table of settings: each with its type, unit, default, limits and reason.

Nothing else in the project declares a setting or a default for one.
``config/streamgate.toml`` and ``streamgate config`` are made from this table, see :mod:`streamgate.core.config`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from streamgate.errors import StreamGateError


def setting(default: Any, reason: str, *, unit: str = "", ge: float | None = None, le: float | None = None) -> Any:
    """One row of the table: its default, why it is there, its unit, and the least and greatest value allowed."""
    return Field(default, description=reason, ge=ge, le=le, json_schema_extra={"unit": unit})


class Section(BaseModel):
    """A section of settings; unknown keys are errors, so that a typing mistake does not go unnoticed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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


class AdminSettings(Section):
    """The operator's way in: a Unix socket that only the server's user may open."""

    socket: str = setting("", "Its path. Empty: admin-PORT.sock in the folder server.data.")


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
    tracked: int = setting(
        65_536, "Addresses, and tokens, that are counted at once; 16 bytes each.", unit="entries", ge=1, le=2**26
    )
    bytes_per_second: int = setting(
        0, "How fast one connection is served. 0: as fast as it takes.", unit="bytes a second", ge=0, le=2**40
    )


class EdgeSettings(Section):
    """What the edge keeps, how much it does at once, and how its answers may be cached and read."""

    cors_origins: tuple[str, ...] = setting(
        ("*",),
        'Origins of pages that may read answers. "*": any, without credentials. A listed origin (https://player.example) may send them.',
    )
    cors_max_age: int = setting(
        7200, "Time a browser may remember a preflight's answer.", unit="seconds", ge=0, le=86400
    )
    manifest_max_age: int = setting(
        2, "Time a multivariant playlist or MPD may be used before it is asked for again.", unit="seconds", ge=0, le=60
    )
    revalidate: float = setting(
        1.0, "An open asset's files are looked at for changes at most this often.", unit="seconds", ge=0, le=60
    )
    failure_ttl: float = setting(
        2.0,
        "Time a failure to open an asset is remembered, so that a broken file is not read over and over.",
        unit="seconds",
        ge=0,
        le=300,
    )
    require_token: bool = setting(
        False, "Every asset needs a playback token, whatever its asset.toml says; else those whose gated is true."
    )
    list_gated: bool = setting(False, "Whether /assets.json tells strangers which assets need a token.")
    authorize_timeout: float = setting(
        5.0,
        "Time for a check that may wait, such as that of a claim which is not evaluated at once; then the answer is 503.",
        unit="seconds",
        ge=0.1,
        le=60,
    )
    max_authorizing: int = setting(
        1024, "Such checks at once; beyond them the answer is 503.", unit="checks", ge=1, le=1_000_000
    )
    retry_after: int = setting(2, "Retry-After of answers with status 503.", unit="seconds", ge=1, le=3600)
    open_assets: int = setting(
        256,
        "Assets kept open, with their indexes in memory (below 3 MiB per hour of video).",
        unit="assets",
        ge=1,
        le=100_000,
    )
    cache_bytes: int = setting(
        256 * 1024 * 1024,
        "Memory of the node, all its workers together, for what it serves from memory.",
        unit="bytes",
        ge=0,
        le=2**40,
    )
    memory_object: int = setting(
        128 * 1024,
        "Largest body kept in memory; larger ones are sent from the disk tier's files.",
        unit="bytes",
        ge=0,
        le=2**30,
    )
    open_objects: int = setting(
        8192, "Files of the disk tier that a worker keeps open.", unit="files", ge=16, le=1_000_000
    )
    disk_bytes: int = setting(
        4 * 2**30,
        "Size of the disk tier, which all workers share, in the folder server.data. 0: none.",
        unit="bytes",
        ge=0,
        le=2**50,
    )
    disk_retry: float = setting(
        30.0, "Time without writes to the disk tier after one has failed.", unit="seconds", ge=0, le=3600
    )
    scrub_rate: int = setting(
        4 * 2**20,
        "Speed at which objects on the disk are read again to find damaged ones. 0: never.",
        unit="bytes a second",
        ge=0,
        le=2**40,
    )
    fill_timeout: float = setting(
        30.0,
        "Time in which an object that is being made must grow; then whoever waits for it is told.",
        unit="seconds",
        ge=0.1,
        le=3600,
    )
    max_buffered_segment: int = setting(
        16 * 1024 * 1024,
        "Largest segment built whole before it is sent; larger ones are sent in blocks.",
        unit="bytes",
        ge=65536,
        le=2**30,
    )
    block: int = setting(
        256 * 1024,
        "Size of the blocks in which larger segments are read and sent, and all of them where memory is short.",
        unit="bytes",
        ge=65536,
        le=2**26,
    )
    max_ts_segment: int = setting(
        64 * 1024 * 1024,
        "Largest MPEG-TS segment, which is always built whole; larger ones are refused.",
        unit="bytes",
        ge=65536,
        le=2**30,
    )
    buffered_bytes: int = setting(
        512 * 1024 * 1024,
        "Memory for segments on their way to clients. Beyond half of it all are sent in blocks, beyond it the answer is 503.",
        unit="bytes",
        ge=2**20,
        le=2**40,
    )
    threads: int = setting(4, "Threads that cut segments, write manifests and compress.", unit="threads", ge=1, le=256)
    open_threads: int = setting(
        2, "Threads that open assets, apart from the others: opening may be slow.", unit="threads", ge=1, le=64
    )
    max_queued: int = setting(
        1024,
        "Tasks that may wait for those threads; beyond it requests are answered 503.",
        unit="tasks",
        ge=1,
        le=1_000_000,
    )
    remux_jobs: int = setting(
        1, "Containers converted at once, each in a process of its own.", unit="processes", ge=1, le=64
    )
    compress_min: int = setting(
        512, "Smaller texts are not compressed: they fit one packet anyway.", unit="bytes", ge=0, le=2**20
    )
    compress_inline: int = setting(
        8192, "Texts up to this size are compressed at once, larger ones in a thread.", unit="bytes", ge=0, le=2**20
    )


class MediaSettings(Section):
    """How presentations are cut (changing that changes the renditions' names), and how large an index may be."""

    target: float = setting(
        4.0,
        "Segments begin at the first common keyframe at or after each multiple of this.",
        unit="seconds",
        ge=0.5,
        le=60,
    )
    max_segment: float = setting(
        12.0, "A rendition whose keyframes are further apart is not offered.", unit="seconds", ge=1, le=600
    )
    trick_interval: float = setting(
        1.0, "Keyframes for trick play are at least this far apart.", unit="seconds", ge=0.1, le=60
    )
    max_index_bytes: int = setting(
        256 * 1024 * 1024,
        "Bytes of a source's boxes that are read and kept for its index; bounds what a hostile file can take.",
        unit="bytes",
        ge=65536,
        le=2**32,
    )
    max_samples: int = setting(
        50_000_000,
        "Samples of a source, all tracks together: more than a week of video with sound.",
        unit="samples",
        ge=1000,
        le=2_000_000_000,
    )
    max_boxes: int = setting(
        10_000_000,
        "Boxes of a source: recordings with a fragment for each frame have several million in some hours.",
        unit="boxes",
        ge=1000,
        le=1_000_000_000,
    )


class TokenSettings(Section):
    """Playback tokens: whose are believed, and how they are made."""

    keys: str = setting(
        "",
        "Folder of key files (NAME.toml), which only their owner may read. Empty: keys in the folder server.data, where one is made.",
    )
    revalidate: float = setting(
        0.5,
        "Time between two looks at the folder of key files: a key that is removed, added or changed there counts by then. 0: only at a start or reload.",
        unit="seconds",
        ge=0,
        le=3600,
    )
    issuer: str = setting("streamgate", "Issuer (iss) of the tokens made here, and of keys whose file names no other.")
    site: str = setting(
        "local", "This site's name: the audience (aud) of its tokens, and of keys whose file names no other."
    )
    require: tuple[str, ...] = setting(
        ("iss", "exp", "cti", "aud"), "Claims that a token must have, where its key's file does not say otherwise."
    )
    signer: str = setting("", "The kid of the key that tokens are made with. Empty: the last one by file name.")
    lifetime: int = setting(
        14_400,
        "Time from the making of a token to its end, which is that of the session: a token in the path is not renewed.",
        unit="seconds",
        ge=60,
        le=2_592_000,
    )


class LogSettings(Section):
    """What is logged, and how it looks. Logs go to standard error."""

    level: Literal["debug", "info", "warning", "error"] = setting("info", "Least important level that is logged.")
    format: Literal["auto", "console", "json"] = setting(
        "auto", "json: one object a line, for machines. console: for people. auto: console on a terminal, else json."
    )
    access: bool = setting(True, "Log each request: method, path without query and token, status, bytes, time.")
    access_file: str = setting(
        "", "File for the lines about requests, opened anew on SIGUSR1. Empty: they go where the other logs go."
    )
    access_format: Literal["auto", "json", "combined"] = setting(
        "auto", "json, or the combined format of nginx and Apache. auto: combined on a terminal, else json."
    )
    access_sample: float = setting(1.0, "Part of the requests that is logged.", unit="of all", ge=0, le=1)
    whole_addresses: bool = setting(
        False, "Log clients' addresses whole; else IPv4 is cut to /24 and IPv6 to /48, as privacy laws want."
    )


class Settings(BaseSettings):
    """All settings. ``Settings()`` are the defaults; :func:`streamgate.core.config.load` reads file and environment."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix="STREAMGATE__",
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    server: ServerSettings = ServerSettings()
    drain: DrainSettings = DrainSettings()
    admin: AdminSettings = AdminSettings()
    tls: TlsSettings = TlsSettings()
    limits: LimitSettings = LimitSettings()
    edge: EdgeSettings = EdgeSettings()
    media: MediaSettings = MediaSettings()
    tokens: TokenSettings = TokenSettings()
    log: LogSettings = LogSettings()

    def admin_socket(self, port: int | None = None) -> Path:
        """Where the operator's socket is of the server that listens on ``port`` (None: on the settings')."""
        default = f"admin-{self.server.port if port is None else port}.sock"
        return Path(self.admin.socket) if self.admin.socket else self.server.data_folder / default

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed in: reading the environment is a decision of ``load``, not of a constructor."""
        return (init_settings,)
