"""Settings of the Redis that the nodes of a site share."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import SecretStr, field_validator

from streamgate.core.settings.section import Section, setting


class RedisSettings(Section):
    """The Redis that the nodes of a site share: a cache tier, leases, and the feed of purges and revocations."""

    url: str = setting(
        "",
        "redis://HOST:PORT/DATABASE, rediss:// for TLS, or unix:///SOCKET. Empty: there is none. A cluster may be given by several"
        " of its nodes, redis://HOST:PORT,HOST:PORT.",
    )
    cluster: bool = setting(False, "It is a Redis Cluster.")
    username: str = setting("", "ACL user. Empty: the default one.")
    password: SecretStr = setting(SecretStr(""), "The user's password; better in the environment or in a file.")
    password_file: str = setting(
        "", "File that holds the password, read for each connection, so that it may be replaced. Empty: none."
    )
    ca: str = setting("", "PEM file of the authorities that may have signed its certificate. Empty: the system's.")
    certificate: str = setting("", "PEM file of the certificate to show, where it asks for one. Empty: none.")
    key: str = setting("", "PEM file of that certificate's key.")
    prefix: str = setting("streamgate:", "What all keys begin with; nodes with the same one are a site.")
    connect_timeout: float = setting(
        0.2, "Longest time until a connection is made, as a part of the call that needs it.", unit="s", ge=0.01, le=60
    )
    timeout: float = setting(
        0.25,
        "Longest time of a call, waiting for a connection included; a request may have to bear it.",
        unit="s",
        ge=0.01,
        le=60,
    )
    pool: int = setting(
        16, "Most connections of a process, to each node of a cluster.", unit="connections", ge=1, le=10_000
    )
    object_limit: int = setting(
        262_144, "Largest object that is shared through it.", unit="bytes", ge=0, le=536_870_912
    )
    ttl: float = setting(86_400.0, "How long an object is kept in it.", unit="s", ge=1, le=31_536_000)
    lease: float = setting(
        2.0, "Longest time that one node is waited for which makes what all can then read.", unit="s", ge=0.05, le=60
    )
    circuit_failures: int = setting(
        5, "So many failures in a row, and it is left alone for a while.", unit="calls", ge=1, le=1000
    )
    circuit_slow: float = setting(
        0.1, "A call that takes longer is as bad as one that failed.", unit="s", ge=0.001, le=60
    )
    circuit_share: float = setting(
        0.5,
        "It is left alone, too, when so many of the latest calls failed or were slow.",
        unit="of all",
        ge=0.01,
        le=1,
    )
    circuit_window: int = setting(20, "The latest calls, of which that share is taken.", unit="calls", ge=2, le=10_000)
    circuit_probe: float = setting(
        0.25,
        "How long it is left alone at first; then one call tries, and each failure doubles it.",
        unit="s",
        ge=0.01,
        le=60,
    )
    circuit_probe_max: float = setting(2.0, "How long it is left alone at most.", unit="s", ge=0.01, le=600)

    @field_validator("url")
    @classmethod
    def _no_secret(cls, url: str) -> str:
        """An address is printed and logged, so what it may hold besides is refused."""
        if not url:
            return url
        scheme, _, rest = url.partition("://")
        if scheme not in ("redis", "rediss", "unix") or not rest:
            raise ValueError("it begins with redis://, rediss:// or unix://")
        if "@" in rest.partition("/")[0]:
            raise ValueError("user and password have settings of their own: redis.username, redis.password_file")
        if "?" in rest or "#" in rest:
            raise ValueError("options have settings of their own")
        if scheme != "unix":
            for host in rest.partition("/")[0].split(","):
                parts = urlsplit(f"redis://{host}")
                if not parts.hostname or parts.port == 0:  # .port raises ValueError beyond 65535
                    raise ValueError("each node is written HOST:PORT")
        return url
