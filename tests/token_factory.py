"""The published vectors, and tokens of any kind: right ones through the project's own maker, wrong ones byte by byte."""

from __future__ import annotations

import hmac
import ipaddress
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from streamgate.access.cbor import Item, Tagged, encode
from streamgate.access.keys import SharedKey
from streamgate.errors import StreamGateError
from streamgate.native.cat import Key, Token, Verifier

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "data/cat-vectors.json").read_text())
SECRET = bytes.fromhex(VECTORS["keys"]["k1"])
KEY = SharedKey(b"k1", SECRET, VECTORS["issuer"], (VECTORS["audience"],), ("iss", "exp", "cti", "aud"))
NOW = 1_800_000_000
SESSION = bytes(range(1, 17))
PATH = "/v/abc123/v540-00112233/7.m4s"
BASE: dict[int | str, Item] = {1: "streamgate", 3: "site-eu-1", 4: 4_102_444_800, 7: SESSION, 310: 1}
"""Claims that are enough."""


def verifier(*keys: Key) -> Verifier:
    """One with the vectors' key, or with ``keys``."""
    return Verifier(keys or [KEY.verifying()])


def raw(token: str) -> bytes:
    """The bytes of a token."""
    return urlsafe_b64decode(token + "=" * (-len(token) % 4))


def text(message: bytes) -> str:
    """A token of any bytes."""
    return urlsafe_b64encode(message).rstrip(b"=").decode()


def payload(claims: bytes, protected: bytes = b"\xa1\x01\x05", unprotected: bytes = b"\xa1\x04\x42k1") -> str:
    """A token with a right MAC over any payload."""
    mac = hmac.digest(SECRET, encode(["MAC0", protected, b"", claims]), "sha256")
    return text(b"\xd8\x3d\xd1\x84" + encode(protected) + unprotected + encode(claims) + encode(mac))


def signed(claims: Mapping[int | str, Any], **more: Any) -> str:
    """A token of ``claims``, those of ``BASE`` among them; None takes one away."""
    whole = {**BASE, **claims}
    return payload(encode({key: value for key, value in whole.items() if value is not None}), **more)


@dataclass(frozen=True)
class Request:
    """What a request says of itself."""

    method: str = "GET"
    scheme: str = "https"
    host: str = "cdn.example.com"
    path: str = PATH
    address: bytes = bytes((203, 0, 113, 7))
    now: int = NOW


def verdict(token: str | bytes, request: Request | None = None, by: Verifier | None = None) -> str:
    """``accept``, or the code of the refusal."""
    judge, asked = by or verifier(), request or Request()
    try:
        check(judge.read(token), asked, judge)
    except StreamGateError as error:
        return error.code
    return "accept"


def check(token: Token, request: Request, by: Verifier) -> None:
    """Ask the verifier about a request; raises what it refuses."""
    by.check(
        token,
        method=request.method,
        scheme=request.scheme,
        host=request.host,
        path=request.path,
        address=request.address,
        now=request.now,
    )


def asked(vector: Mapping[str, Any]) -> Request:
    """The request that comes with a vector."""
    told = vector["request"]
    url = urlsplit(told["url"])
    return Request(
        told["method"], url.scheme, url.netloc, url.path, ipaddress.ip_address(told["ip"]).packed, told["now"]
    )


__all__ = ["BASE", "KEY", "NOW", "PATH", "SECRET", "SESSION", "VECTORS", "Request", "Tagged", "encode"]
