"""The operator's way in from other machines: TLS, and a bearer token (RFC 6750), a client's certificate, or both.

There is no listening without one of them. What is asked for, and answered, is that of :mod:`edge.admin`.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import os
import ssl
from pathlib import Path

from aiohttp import hdrs, web

from edge.accept import Acceptor
from edge.admin import Control, runner
from edge.listeners import open_tcp
from edge.rates import Rates
from streamgate.core.logging import get_logger
from streamgate.core.settings import AdminSettings
from streamgate.errors import StreamGateError

LEAST_TOKEN = 32  # characters: of base64, 192 bits
_MOST_TOKEN = 4096
_HANDSHAKE_S = 10.0
_FIRST_S = 10.0  # in which a connection must bring a request that is let in
_log = get_logger("edge.admin")


class Access:
    """The listener of ``admin.listen``."""

    def __init__(self, control: Control, settings: AdminSettings) -> None:
        """Raises ``config_invalid`` where nothing would tell operators from others, or a file cannot be used."""
        if not (settings.token_file or settings.client_ca):
            raise StreamGateError("config_invalid", "admin.listen needs admin.token_file or admin.client_ca")
        self._tls = context(settings)
        self._control = control
        self._settings = settings
        self._token = TokenFile(Path(settings.token_file)) if settings.token_file else None
        self._failures = Rates(settings.failures, settings.failure_burst)  # wrong tokens, by address
        self._runner = runner(control, self._admit)
        self._acceptor: Acceptor | None = None
        # Connections on which nobody was let in yet.
        self._strangers: dict[web.RequestHandler, asyncio.TimerHandle] = {}

    async def start(self) -> str:
        """Listen; the address. Raises ``listen_failed``, and ``config_invalid`` for a token's file that is wrong."""
        if self._token is not None:
            await asyncio.to_thread(self._token.read)
        listening = await asyncio.to_thread(open_tcp, "admin.listen", self._settings.listen)
        await self._runner.setup()
        self._acceptor = Acceptor(
            [listening],
            self._protocol,
            self._control.telemetry,
            tls=self._tls,
            handshake_timeout=_HANDSHAKE_S,
            most=self._settings.connections,
        )
        self._acceptor.start()
        host, port = listening.getsockname()[:2]
        return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"

    async def stop(self) -> None:
        """End the connections."""
        if self._acceptor is not None:
            self._acceptor.stop()
            self._acceptor.give_up()
        for timer in self._strangers.values():
            timer.cancel()
        self._strangers.clear()
        await self._runner.cleanup()

    def renew(self, settings: AdminSettings) -> None:
        """Show the certificate that is there now to who connects from now on; blocking. Raises ``config_invalid``."""
        load(self._tls, settings)

    def _protocol(self, _: bytes | None, __: int) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None
        if len(server.connections) >= self._settings.connections:
            return _Closed()
        protocol = server()
        self._strangers[protocol] = asyncio.get_running_loop().call_later(_FIRST_S, self._send_away, protocol)
        return protocol

    def _send_away(self, protocol: web.RequestHandler) -> None:
        """End a connection on which nobody was let in by now: strangers must not take all there are."""
        del self._strangers[protocol]
        if protocol.transport is not None:
            protocol.transport.abort()

    def _let_in(self, protocol: web.RequestHandler) -> None:
        timer = self._strangers.pop(protocol, None)
        if timer is not None:
            timer.cancel()

    async def _admit(self, request: web.Request) -> None:
        """Raises ``admin_token`` without the right token, ``rate_limited`` from where too many wrong ones came."""
        if self._token is None:
            self._let_in(request.protocol)
            return
        address = _network(request.remote or "")
        if self._failures.too_many(address):
            raise StreamGateError("rate_limited", "too many wrong tokens came from this address")
        scheme, _, sent = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        try:
            token = await asyncio.to_thread(self._token.read)
        except StreamGateError as error:
            _log.error("no operator is let in by token", code=error.code, detail=error.detail)
            raise StreamGateError("admin_token") from None
        if scheme.lower() != "bearer" or not hmac.compare_digest(sent.strip().encode("utf-8", "replace"), token):
            self._failures.add(address)
            self._control.telemetry.count("admin_refused")
            _log.warning("an operator's token is wrong", address=request.remote)
            raise StreamGateError("admin_token")
        self._let_in(request.protocol)


class TokenFile:
    """A token in a file that only its owner may read; read again when the file changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] = ()
        self._token = b""

    def read(self) -> bytes:
        """The token as it is now; blocking. Raises ``config_invalid`` where there is none, and so nobody is let in."""
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_mode & 0o077:
                    raise _wrong(f"others may read {self._path} (mode {status.st_mode & 0o777:o}); make it 600")
                seen = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
                if seen != self._seen:
                    self._seen, self._token = (), b""
                    token = file.read(_MOST_TOKEN + 1).strip()
                    if not LEAST_TOKEN <= len(token) <= _MOST_TOKEN or len(token.split()) != 1 or not token.isascii():
                        raise _wrong(f"{self._path} holds no token of {LEAST_TOKEN} to {_MOST_TOKEN} characters")
                    self._seen, self._token = seen, token
        except OSError as error:
            raise _wrong(f"{self._path}: {os.strerror(error.errno or 0)}") from error
        return self._token


def context(settings: AdminSettings) -> ssl.SSLContext:
    """What connections are opened with: TLS 1.2 or newer (RFC 8996); raises ``config_invalid``."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    made.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    load(made, settings)
    if settings.client_ca:
        try:
            made.load_verify_locations(settings.client_ca)
        except OSError as error:
            raise _wrong(f"{settings.client_ca} holds no certificates of authorities") from error
        made.verify_mode = ssl.CERT_REQUIRED
    return made


def load(tls: ssl.SSLContext, settings: AdminSettings) -> None:
    """Read the certificate and its key; blocking. Raises ``config_invalid``."""
    if not settings.certificate:
        raise _wrong("admin.listen needs admin.certificate")
    try:
        tls.load_cert_chain(settings.certificate, settings.key or None, password=_no_password)
    except OSError as error:
        raise _wrong("admin.certificate or admin.key cannot be used") from error


class _Closed(asyncio.Protocol):
    """Of a connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _network(remote: str) -> str:
    """What one attacker has as a rule: an IPv4 address, or an IPv6 network of 64 bits."""
    try:
        address = ipaddress.ip_address(remote.partition("%")[0])
    except ValueError:
        return remote
    if isinstance(address, ipaddress.IPv6Address):
        return str(address.ipv4_mapped or ipaddress.IPv6Network((address, 64), strict=False))
    return remote


def _no_password() -> str:
    raise ssl.SSLError("the key has a password")


def _wrong(detail: str) -> StreamGateError:
    return StreamGateError("config_invalid", detail)
