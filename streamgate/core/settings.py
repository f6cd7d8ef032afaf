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
    """The listening socket, its connections, and how the server stops."""

    host: str = setting(
        "127.0.0.1", "Address to listen on. 127.0.0.1 is reached from this machine only, 0.0.0.0 from everywhere."
    )
    port: int = setting(8080, "TCP port to listen on. 0 lets the system choose a free one.", ge=0, le=65535)
    backlog: int = setting(
        1024, "Connections that may wait to be accepted; the kernel refuses more.", unit="connections", ge=1, le=65535
    )
    max_connections: int = setting(
        10_000, "Open connections; a further one is answered 503 and closed.", unit="connections", ge=1, le=1_000_000
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
    drain_delay: float = setting(
        0.0,
        "Time between not being ready and no longer accepting: a balancer's chance to notice.",
        unit="seconds",
        ge=0,
        le=300,
    )
    stop_deadline: float = setting(
        30.0, "Time for responses under way to finish after SIGTERM; then they are cut.", unit="seconds", ge=0, le=3600
    )
    data: str = setting("", "Folder for converted containers. Empty: streamgate in $XDG_CACHE_HOME, or in ~/.cache.")

    @property
    def data_folder(self) -> Path:
        """The folder that ``data`` means; raises ``config_invalid`` where there is none to take."""
        if self.data:
            return Path(self.data)
        try:
            return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamgate"
        except RuntimeError:
            raise StreamGateError("config_invalid", "server.data: this user has no home folder, so name one") from None


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
    retry_after: int = setting(2, "Retry-After of answers with status 503.", unit="seconds", ge=1, le=3600)
    open_assets: int = setting(
        256,
        "Assets kept open, with their indexes in memory (below 3 MiB per hour of video).",
        unit="assets",
        ge=1,
        le=100_000,
    )
    cache_bytes: int = setting(
        64 * 1024 * 1024,
        "Memory for playlists, MPDs, init segments, subtitles and their compressed forms.",
        unit="bytes",
        ge=0,
        le=2**40,
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


class LogSettings(Section):
    """What is logged, and how it looks. Logs go to standard error."""

    level: Literal["debug", "info", "warning", "error"] = setting("info", "Least important level that is logged.")
    format: Literal["auto", "console", "json"] = setting(
        "auto", "json: one object a line, for machines. console: for people. auto: console on a terminal, else json."
    )
    access: bool = setting(True, "Log each request: method, path without query, status, bytes, time of each phase.")


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
    edge: EdgeSettings = EdgeSettings()
    media: MediaSettings = MediaSettings()
    log: LogSettings = LogSettings()

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
