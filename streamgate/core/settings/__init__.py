"""The one table of settings: each with its type, unit, default, limits and reason.

Nothing else in the project declares a setting or a default for one.
``config/streamgate.toml`` and ``streamgate config`` are made from this table, see :mod:`streamgate.core.config`.
"""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from streamgate.core.settings.auth import ApiSettings, AuthSettings, ForeignSettings, LeaseSettings
from streamgate.core.settings.conditions import ConditionSettings
from streamgate.core.settings.edge import EdgeSettings, MediaSettings, TokenSettings
from streamgate.core.settings.geoip import GeoipSettings
from streamgate.core.settings.log import LogSettings
from streamgate.core.settings.operator import AdminSettings, PurgeSettings
from streamgate.core.settings.origin import S3Settings
from streamgate.core.settings.prefetch import PrefetchSettings
from streamgate.core.settings.redis import RedisSettings
from streamgate.core.settings.remote import OriginSettings
from streamgate.core.settings.revocation import RevocationSettings
from streamgate.core.settings.section import Section, setting
from streamgate.core.settings.server import DrainSettings, LimitSettings, ServerSettings, TlsSettings

__all__ = [
    "AdminSettings",
    "ApiSettings",
    "AuthSettings",
    "ConditionSettings",
    "DrainSettings",
    "EdgeSettings",
    "ForeignSettings",
    "GeoipSettings",
    "LeaseSettings",
    "LimitSettings",
    "LogSettings",
    "MediaSettings",
    "OriginSettings",
    "PrefetchSettings",
    "PurgeSettings",
    "RedisSettings",
    "RevocationSettings",
    "S3Settings",
    "Section",
    "ServerSettings",
    "Settings",
    "TlsSettings",
    "TokenSettings",
    "setting",
]


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
    purge: PurgeSettings = PurgeSettings()
    tls: TlsSettings = TlsSettings()
    limits: LimitSettings = LimitSettings()
    edge: EdgeSettings = EdgeSettings()
    media: MediaSettings = MediaSettings()
    prefetch: PrefetchSettings = PrefetchSettings()
    redis: RedisSettings = RedisSettings()
    revocation: RevocationSettings = RevocationSettings()
    tokens: TokenSettings = TokenSettings()
    auth: AuthSettings = AuthSettings()
    leases: LeaseSettings = LeaseSettings()
    api: ApiSettings = ApiSettings()
    foreign: ForeignSettings = ForeignSettings()
    conditions: ConditionSettings = ConditionSettings()
    geoip: GeoipSettings = GeoipSettings()
    s3: S3Settings = S3Settings()
    origin: OriginSettings = OriginSettings()
    log: LogSettings = LogSettings()

    def admin_socket(self, port: int | None = None) -> Path:
        """Where the operator's socket is of the server that listens on ``port`` (None: on the settings')."""
        default = f"admin-{self.server.port if port is None else port}.sock"
        return Path(self.admin.socket) if self.admin.socket else self.server.data_folder / default

    def auth_socket(self, port: int | None = None) -> Path:
        """Where the auth role's socket is of the server that listens on ``port`` (None: on the settings')."""
        default = f"auth-{self.server.port if port is None else port}.sock"
        return Path(self.auth.socket) if self.auth.socket else self.server.data_folder / default

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
