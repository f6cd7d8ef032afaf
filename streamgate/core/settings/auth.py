"""Settings of sign-in, grants and sessions, and of the leases that edges serve by."""

from __future__ import annotations

from typing import Literal

from streamgate.core.settings.section import Section, setting


class AuthSettings(Section):
    """The auth role: a process of the node that starts playback, and knows which sessions may go on."""

    enabled: bool = setting(True, "Run it. Without it nobody gets a session here, and no lease.")
    socket: str = setting(
        "", "Its Unix socket, which only the server's user may open. Empty: auth-PORT.sock in the folder server.data."
    )
    accounts: str = setting(
        "", "TOML file of accounts with their passwords' hashes (`streamgate accounts hash`). Empty: there are none."
    )
    access_life: int = setting(600, "Life of an access token.", unit="seconds", ge=1, le=86_400)
    refresh_life: int = setting(
        2_592_000, "Time after which one must sign in anew, however often one was here.", unit="seconds", ge=1, le=2**31
    )
    starts_per_account: float = setting(
        30.0,
        "Starts of playback of one account, or of one browser or address where there is no account; more are answered 429.",
        unit="a minute",
        ge=0.1,
        le=1e6,
    )
    renewals_per_session: float = setting(
        6.0,
        "Renewals of one session's token: asked for, more are answered 429; beyond as many media answers bring no new one.",
        unit="a minute",
        ge=0.1,
        le=1e6,
    )
    logins_per_address: float = setting(
        10.0,
        "Attempts to sign in, or to start with a password, from one address; more are answered 429.",
        unit="a minute",
        ge=0.1,
        le=1e6,
    )
    tracked: int = setting(
        65_536, "Accounts, sessions and addresses whose rates are counted at once.", unit="entries", ge=64, le=2**24
    )
    remembered: int = setting(
        250_000, "Sessions kept in memory, some 1.5 KiB each; others are read again.", unit="sessions", ge=16, le=2**24
    )
    hashing: int = setting(
        2, "Passwords that are hashed at once, in 16 MiB each and a thread.", unit="passwords", ge=1, le=64
    )
    hashing_queue: int = setting(
        64, "Passwords that may wait for that; further ones are answered 503.", unit="passwords", ge=1, le=10_000
    )
    max_streams: int = setting(
        3,
        "Streams at once of one entitlement, and of one account, where the policy does not say otherwise. 0: any number.",
        unit="sessions",
        ge=0,
        le=100_000,
    )
    streams_window: float = setting(
        60.0, "A session is a stream at once for so long after its last request.", unit="seconds", ge=0.1, le=3600
    )
    too_many_streams: Literal["refuse", "end_oldest"] = setting(
        "refuse", "What happens where one more would be too many: it is refused (409), or the oldest ends."
    )
    max_networks: int = setting(
        2,
        "Networks (/24, /48) from which one session may be used within networks_window; beyond it is a shared link. 0: any number.",
        unit="networks",
        ge=0,
        le=64,
    )
    networks_window: float = setting(
        60.0, "How long a network counts after a session's last request from there.", unit="seconds", ge=0.1, le=3600
    )


class LeaseSettings(Section):
    """Leases: an edge serves a session only while it holds one, which is extended only while the grant holds."""

    duration: float = setting(
        60.0,
        "How long a lease counts: so long at most somebody stays whose session has ended, whatever has failed.",
        unit="seconds",
        ge=0.5,
        le=3600,
    )
    wait: float = setting(
        2.0,
        "Longest time that a session's first request waits for its lease; then it is answered 503.",
        unit="seconds",
        ge=0.05,
        le=60,
    )
    most: int = setting(
        50_000,
        "Leases that a worker holds at once; beyond it the one that ends first makes room, and is asked for again.",
        unit="leases",
        ge=16,
        le=2**24,
    )
    auth_outage: float = setting(
        0.0,
        "How much longer leases count while the auth role is away; so much longer a revoked viewer may stay, too.",
        unit="seconds",
        ge=0,
        le=2_592_000,
    )


class ApiSettings(Section):
    """Requests below /api, which workers pass on to the auth role."""

    max_body: int = setting(65_536, "Largest body of a request.", unit="bytes", ge=256, le=2**24)
    timeout: float = setting(
        10.0, "Longest time until such a request is answered; then the answer is 503.", unit="seconds", ge=0.1, le=300
    )
    most: int = setting(
        64,
        "Requests under way at once, of each process; further ones are answered 503.",
        unit="requests",
        ge=1,
        le=65_536,
    )


class ForeignSettings(Section):
    """Tokens that others issue and sign; they have no session here."""

    max_life: float = setting(
        3600.0,
        "How long such a token counts after it was first seen, whatever it says.",
        unit="seconds",
        ge=1,
        le=2_592_000,
    )
    checks_per_network: float = setting(
        50.0, "Signatures of tokens never seen that are checked, for one network.", unit="a second", ge=0.1, le=1e6
    )
    remembered: int = setting(
        65_536, "Tokens whose signature was found right that are remembered.", unit="tokens", ge=16, le=2**24
    )
