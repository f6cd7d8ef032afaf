"""Where a bucket is: ``s3://bucket/prefix?endpoint=https://…&region=…&addressing=path``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from streamgate.core.settings.origin import S3Settings
from streamgate.errors import StreamGateError
from streamgate.storage.objects.store import is_key

Addressing = Literal["auto", "path", "virtual"]

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")


@dataclass(frozen=True, slots=True)
class Address:
    """A bucket and the part of it that counts: ``prefix`` is empty or ends in a slash; ``endpoint`` is empty for AWS."""

    bucket: str
    prefix: str
    endpoint: str
    region: str
    addressing: Addressing

    @property
    def name(self) -> str:
        """For people and logs."""
        host = f" at {urlsplit(self.endpoint).netloc}" if self.endpoint else ""
        return f"s3://{self.bucket}/{self.prefix}{host}"


def parse(url: str, settings: S3Settings) -> Address:
    """What ``url`` says, and ``settings`` where it is silent; raises ``config_invalid`` without repeating its query."""
    parts = urlsplit(url)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    endpoint = query.pop("endpoint", settings.endpoint).rstrip("/")
    region = query.pop("region", settings.region)
    addressing = query.pop("addressing", settings.addressing)
    prefix = unquote(parts.path).strip("/")
    if parts.scheme != "s3" or "@" in parts.netloc or not _BUCKET.fullmatch(parts.netloc) or parts.fragment:
        raise _wrong(shown, "an address is s3://bucket/prefix; credentials are found by AWS's standard chain")
    if query:
        raise _wrong(shown, "it may say endpoint, region and addressing, and nothing else")
    if prefix and not is_key(prefix):
        raise _wrong(shown, "its prefix has an empty part, '.' or '..'")
    if addressing not in ("auto", "path", "virtual"):
        raise _wrong(shown, "addressing is auto, path or virtual")
    if endpoint:
        try:
            told = urlsplit(endpoint)
            good = told.scheme in ("http", "https") and told.hostname and (told.port is None or told.port > 0)
        except ValueError:
            good = False
        if not good or "@" in told.netloc or told.path or told.query or told.fragment:
            raise _wrong(shown, "an endpoint is http(s)://host or http(s)://host:port")
    return Address(parts.netloc, prefix and f"{prefix}/", endpoint, region, cast(Addressing, addressing))


def _wrong(shown: str, why: str) -> StreamGateError:
    return StreamGateError("config_invalid", f"{shown}: {why}")
