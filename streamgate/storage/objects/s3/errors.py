"""What goes wrong between us and a bucket, as errors of ours. Texts of other libraries, which may hold a signed address, stay out."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp

from streamgate.errors import StreamGateError

_REGION = re.compile(r"<Region>([a-z0-9-]{1,64})</Region>")
_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,64})</Code>")
# Of error codes that say the same for several statuses (Amazon S3 API reference, "List of error codes").
_STALE = frozenset(("ExpiredToken", "TokenRefreshRequired", "RequestExpired", "RequestTimeTooSkewed"))
_AGAIN = frozenset(("RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable", "OperationAborted"))
_RETRIED = frozenset((408, 409, 425, 429, 500, 502, 503, 504))


class OriginError(StreamGateError):
    """A failure of one attempt. ``again``: another may succeed, not before ``after`` s; ``stale``: with a new signature.

    ``region`` is what the bucket says it is in, where it says that; ``unsigned``: there were no credentials.
    """

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        again: bool = False,
        after: float = 0.0,
        stale: bool = False,
        region: str | None = None,
        unsigned: bool = False,
    ) -> None:
        super().__init__(code, detail)
        self.again = again
        self.after = after
        self.stale = stale
        self.region = region
        self.unsigned = unsigned


def of_answer(what: str, status: int, headers: Mapping[str, str], code: str = "", body: str = "") -> OriginError:
    """The error that an answer other than a success means; ``code`` is S3's own, else found in ``body``."""
    if not code and (found := _CODE.search(body)) is not None:
        code = found[1]
    after = retry_after(headers)
    # Of whoever answers: it becomes part of a host's name.
    told = _REGION.search(f"<Region>{headers.get('x-amz-bucket-region', '')}</Region>{body}")
    region = told[1] if told and status in (301, 307, 400, 403) else None
    said = f"{what}: it answers {status}{f' {code}' if code else ''}"
    if code == "NoSuchBucket":
        return OriginError("origin_denied", f"{what}: there is no such bucket")
    if status == 404:
        return OriginError("source_not_found", f"{what}: no such object")
    if status == 412:
        return OriginError("source_changed", f"{what}: another version is there now")
    if status in _RETRIED or code in _AGAIN:
        return OriginError("origin_unavailable", said, again=True, after=after)
    stale = status in (401, 403) or code in _STALE
    return OriginError("origin_denied" if stale else "origin_unavailable", said, stale=stale, region=region)


def of_exception(what: str, error: BaseException) -> OriginError:
    """The error that a failure to send a request, or to receive its answer, means."""
    if isinstance(error, OriginError):
        return error
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return OriginError("origin_unavailable", f"{what}: its name cannot be resolved", again=True)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return OriginError("origin_untrusted", f"{what}: {_distrust(error.certificate_error)}")
    if isinstance(error, aiohttp.ClientSSLError):
        return OriginError("origin_unavailable", f"{what}: TLS with it fails")
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
        return OriginError("origin_unavailable", f"{what}: it does not answer in time", again=True)
    if isinstance(error, aiohttp.ClientConnectorError):
        return OriginError("origin_unavailable", f"{what}: it cannot be connected to", again=True)
    if isinstance(error, (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError)):
        return OriginError("origin_unavailable", f"{what}: the connection broke before the end", again=True)
    return OriginError("origin_unavailable", f"{what}: the connection failed ({type(error).__name__})", again=True)


def _distrust(error: Exception) -> str:
    """What is wrong with a certificate, in OpenSSL's words, which hold nothing of the request."""
    return f"its certificate is refused ({getattr(error, 'verify_message', type(error).__name__)})"


@functools.cache
def _no_credentials() -> tuple[type[Exception], ...]:
    from botocore import exceptions as known

    names = ("NoCredentials", "PartialCredentials", "CredentialRetrieval", "MetadataRetrieval", "TokenRetrieval", "SSO")
    return tuple(getattr(known, f"{name}Error") for name in names)


def of_botocore(what: str, error: Exception) -> OriginError:
    """The error that an exception of aioboto3 means; botocore is loaded by whoever meets one."""
    from botocore import exceptions as known
    from botocore.parsers import ResponseParserError

    if isinstance(error, OriginError):
        return error
    if isinstance(error, known.ClientError):
        told: Mapping[str, Any] = error.response.get("ResponseMetadata", {})
        code = str(error.response.get("Error", {}).get("Code", ""))
        headers = {_spelled(name): value for name, value in told.get("HTTPHeaders", {}).items()}
        region = error.response.get("Error", {}).get("Region")
        body = f"<Region>{region}</Region>" if region else ""
        # Of HEAD there is no body, and botocore says the status in place of a code.
        return of_answer(what, int(told.get("HTTPStatusCode", 0)), headers, "" if code.isdigit() else code, body)
    if isinstance(error, _no_credentials()):
        return OriginError("origin_denied", f"{what}: AWS's standard chain finds no credentials", unsigned=True)
    if isinstance(error, known.SSLError):
        cause = getattr(error.kwargs.get("error"), "certificate_error", None)
        if cause is not None:
            return OriginError("origin_untrusted", f"{what}: {_distrust(cause)}")
        return OriginError("origin_unavailable", f"{what}: TLS with the store fails")
    if isinstance(error, (known.ConnectTimeoutError, known.ReadTimeoutError, TimeoutError)):
        return OriginError("origin_unavailable", f"{what}: the store does not answer in time", again=True)
    if isinstance(error, (known.HTTPClientError, known.ConnectionError, OSError)):
        return OriginError(
            "origin_unavailable", f"{what}: the store cannot be reached, or the connection broke", again=True
        )
    if isinstance(error, ResponseParserError):
        return OriginError("origin_unavailable", f"{what}: the store's answer cannot be understood", again=True)
    return OriginError("origin_unavailable", f"{what}: the request failed ({type(error).__name__})")


def _spelled(name: str) -> str:
    return {"retry-after": "Retry-After", "date": "Date"}.get(name, name)


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds to wait by ``Retry-After`` (RFC 9110 section 10.2.3), dates taken by the sender's own clock; 0 where it says none."""
    told = headers.get("Retry-After", "").strip()
    if told.isascii() and told.isdigit():
        return float(told[:9])
    try:
        until = parsedate_to_datetime(told)
        now = parsedate_to_datetime(headers["Date"]) if "Date" in headers else datetime.now(UTC)
        return max(0.0, (until - now).total_seconds())
    except (TypeError, ValueError):
        return 0.0
