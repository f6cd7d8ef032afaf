"""Settings of the store that sources come from."""

from __future__ import annotations

from typing import Literal

from streamgate.core.settings.section import Section, setting

_MIB = 1024 * 1024


class S3Settings(Section):
    """Sources in S3 or what speaks its protocol. Credentials come by AWS's standard chain (environment, profile, role)."""

    endpoint: str = setting("", "Address of the service, such as https://s3.example.net. Empty: AWS, by region.")
    region: str = setting("auto", "Region of the bucket. auto: the environment's, or what the endpoint wants.")
    addressing: Literal["auto", "path", "virtual"] = setting(
        "auto", "Bucket in the path or in the host's name. auto: path with an endpoint of one's own, else virtual."
    )
    ca_file: str = setting(
        "",
        "PEM file of the authorities that may vouch for the store, and no others. Empty: AWS_CA_BUNDLE's, else the machine's.",
    )
    replicas: tuple[str, ...] = setting(
        (),
        "Other buckets with the same objects, in order of preference: s3://bucket/prefix?endpoint=https://…&region=…;"
        " read from where the first cannot be.",
    )
    connections: int = setting(
        64,
        "Connections of a process to one bucket at most; an eighth of them for what is no GET.",
        unit="connections",
        ge=2,
        le=4096,
    )
    connect_timeout: float = setting(2.0, "For a connection to be made, TLS included.", unit="seconds", ge=0.05, le=60)
    stall_timeout: float = setting(
        4.0,
        "Without an answer or its next bytes: the connection is given up, and the read goes on over another.",
        unit="seconds",
        ge=0.05,
        le=300,
    )
    deadline: float = setting(
        10.0,
        "For a request with all its retries. Of a body, the time that it was waited for.",
        unit="seconds",
        ge=0.1,
        le=600,
    )
    least_rate: int = setting(
        64 * 1024,
        "Bytes that extend the deadline of a body by a second: long ones may take longer.",
        unit="bytes a second",
        ge=1024,
        le=1024**3,
    )
    attempts: int = setting(
        4, "Times that a request is sent at most, anew after each MiB of a body.", unit="attempts", ge=1, le=20
    )
    backoff: float = setting(
        0.1,
        "Longest pause before the second attempt; doubles with each, and a random part of it is waited.",
        unit="seconds",
        ge=0,
        le=30,
    )
    retry_ratio: float = setting(
        0.2,
        "Retries in proportion to requests: where most fail, repeating all would double the load.",
        unit="of all",
        ge=0,
        le=1,
    )
    hedge_after: float = setting(
        0.0,
        "Send a request for bytes a second time where no answer came by then; the first answer wins. 0: never.",
        unit="seconds",
        ge=0,
        le=60,
    )
    url_lifetime: int = setting(
        3600,
        "Validity of a signed address, which saves signing each request; renewed at half of it.",
        unit="seconds",
        ge=60,
        le=604_800,
    )
    buffer: int = setting(
        256 * 1024,
        "Bytes of an answer that may wait for a slow reader; at most twice as many, and what a socket gives at once.",
        unit="bytes",
        ge=16 * 1024,
        le=64 * _MIB,
    )
    read_limit: int = setting(
        64 * _MIB, "Longest range that is read into memory in one piece.", unit="bytes", ge=64 * 1024, le=4096 * _MIB
    )
    memory: int = setting(
        256 * _MIB,
        "Bytes of such ranges under way at once in a process; others wait.",
        unit="bytes",
        ge=_MIB,
        le=65_536 * _MIB,
    )
    list_limit: int = setting(
        200_000, "Objects in a listing, which is held in memory.", unit="objects", ge=1, le=10_000_000
    )
    part_size: int = setting(
        16 * _MIB, "Size of a part: what is longer is uploaded in parts.", unit="bytes", ge=5 * _MIB, le=1024 * _MIB
    )
    replica_failures: int = setting(
        3, "Failures in a row after which a bucket is asked last.", unit="failures", ge=1, le=100
    )
    replica_retry: float = setting(
        5.0,
        "Until a failed bucket is tried again; doubles with each failure, to sixteen times as long.",
        unit="seconds",
        ge=0.1,
        le=3600,
    )
    replica_successes: int = setting(
        3, "Answers in a row after which a failed bucket is preferred again.", unit="answers", ge=1, le=100
    )
