"""The sockets that a node listens on: their addresses, their options, and one of each for every worker."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

from streamgate.core.settings import ServerSettings, Settings
from streamgate.errors import StreamGateError

_ADDRESS = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]]*)):(?P<port>\d{1,5})")
_UNIX = "unix:"


@dataclass(frozen=True)
class Address:
    """A host and a port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        return f"{_UNIX}{self.path}" if self.path else f"{self.host} port {self.port}"


def addresses(settings: ServerSettings) -> list[Address]:
    """All addresses of the settings, ``host`` and ``port`` first; raises ``config_invalid`` for one that is none."""
    return [Address(settings.host, settings.port), *(_parse("server.listen", text) for text in settings.listen)]


def listen(settings: ServerSettings) -> socket.socket:
    """A socket that listens on the settings' host and port; raises ``listen_failed``."""
    return _open(Address(settings.host, settings.port), settings, 1)[0]


@dataclass(frozen=True)
class Listeners:
    """For each worker a row of the sockets that it accepts from, one an address; and the files of Unix sockets.

    The last ``encrypted`` sockets of each row speak TLS.
    """

    rows: list[list[socket.socket]]
    paths: list[str]
    encrypted: int = 0

    @property
    def url(self) -> str:
        """How the first address is reached."""
        return url(self.rows[0][0])

    def shared_out(self, seats: int) -> list[tuple[list[socket.socket], list[socket.socket]]]:
        """For each of so many seats its sockets that speak plainly, and those that speak TLS.

        Rows without a seat of their own are shared out: what waits in their queues must be served too.
        """
        shared = []
        for seat in range(seats):
            plain, encrypted = zip(*(self.parts(row) for row in self.rows[seat::seats]), strict=True)
            shared.append((_each_once(plain), _each_once(encrypted)))
        return shared

    def parts(self, row: list[socket.socket]) -> tuple[list[socket.socket], list[socket.socket]]:
        """Those of a row that speak plainly, and those that speak TLS."""
        plain = len(row) - self.encrypted
        return row[:plain], row[plain:]

    def extend(self, workers: int, settings: ServerSettings) -> None:
        """Have at least so many rows; raises ``listen_failed``."""
        while len(self.rows) < workers:
            self.rows.append([_another(each, settings) for each in self.rows[0]])

    def close(self) -> None:
        """Close them all, and remove the files."""
        for path in self.paths:
            with contextlib.suppress(OSError):
                os.unlink(path)
        for row in self.rows:
            for opened in row:
                opened.close()


def listen_all(settings: Settings, workers: int) -> Listeners:
    """Sockets at all addresses of the settings, for so many workers.

    A TCP socket is the worker's own (SO_REUSEPORT: the kernel spreads connections over them), so that what waits in its
    queue waits for that worker's successor if need be. A Unix socket, of which there can be one only, is shared by all.
    Raises ``config_invalid`` and ``listen_failed``.
    """
    listeners = Listeners([[] for _ in range(workers)], [], len(settings.tls.listen))
    try:
        for address in (*addresses(settings.server), *(_parse("tls.listen", text) for text in settings.tls.listen)):
            for row, opened in zip(listeners.rows, _open(address, settings.server, workers), strict=True):
                row.append(opened)
            if address.path:
                listeners.paths.append(address.path)
    except BaseException:
        listeners.close()
        raise
    return listeners


def apply_options(listening: socket.socket, settings: ServerSettings) -> None:
    """Set what the sockets that it accepts inherit; what they have keeps."""
    if settings.send_buffer:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.send_buffer)
    if listening.family == socket.AF_UNIX:
        return
    # What a client does not take is not kept for it for ever, not even by the kernel.
    # Later than our own limit, which knows why it ends a response.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(settings.send_timeout * 2000))
    # 0 is the system's default, no limit; a stalled client then holds as much as its send buffer grew to, megabytes.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, settings.unsent)


def url(listening: socket.socket) -> str:
    """How a browser of this machine reaches the socket; of a Unix socket its path."""
    if listening.family == socket.AF_UNIX:
        return f"{_UNIX}{listening.getsockname()}"
    host, port = listening.getsockname()[:2]
    if host == "0.0.0.0":
        host = "127.0.0.1"
    elif host == "::":
        host = "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def open_tcp(setting: str, text: str) -> socket.socket:
    """A TCP socket that listens at the address in ``text``; blocking. Raises ``config_invalid``, ``listen_failed``."""
    address = _parse(setting, text)
    if address.path:
        raise StreamGateError("config_invalid", f"{setting}: {text!r} is no HOST:PORT or [V6]:PORT")
    return _open(address, ServerSettings(), 1)[0]


def open_unix(path: str, backlog: int, *, mode: int | None = None) -> socket.socket:
    """A Unix socket that listens at ``path``, in place of one that nobody answers at; ``mode`` are its permissions.

    Raises OSError, with EADDRINUSE where somebody does answer.
    """
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_dead(path)
        # A mode that is set later would leave a moment in which anybody may connect.
        before = os.umask(~mode & 0o777) if mode is not None else None
        try:
            opened.bind(path)
        finally:
            if before is not None:
                os.umask(before)
        opened.listen(backlog)
        opened.setblocking(False)
    except BaseException:
        opened.close()
        raise
    return opened


def _each_once(rows: Iterable[list[socket.socket]]) -> list[socket.socket]:
    """The sockets of all rows; a Unix socket is in every one."""
    return list(dict.fromkeys(chain.from_iterable(rows)))


def _open(address: Address, settings: ServerSettings, count: int) -> list[socket.socket]:
    try:
        return _unix(address, settings, count) if address.path else _tcp(address, settings, count)
    except OSError as error:
        reason = error.strerror or str(error) or os.strerror(error.errno or 0)
        raise StreamGateError("listen_failed", f"{address}: {reason}") from error


def _unix(address: Address, settings: ServerSettings, count: int) -> list[socket.socket]:
    opened = open_unix(address.path, settings.backlog)
    apply_options(opened, settings)
    return [opened] * count


def _tcp(address: Address, settings: ServerSettings, count: int) -> list[socket.socket]:
    found = socket.getaddrinfo(address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, name = found[0]
    opened: list[socket.socket] = []
    try:
        for _ in range(count):
            opened.append(_bind(family, name, settings, shared=bool(opened)))
            name = opened[0].getsockname()
    except BaseException:
        for one in opened:
            one.close()
        raise
    return opened


def _another(opened: socket.socket, settings: ServerSettings) -> socket.socket:
    """One more socket at the same address; of a Unix socket there can be no other."""
    if opened.family == socket.AF_UNIX:
        return opened
    try:
        return _bind(opened.family, opened.getsockname(), settings, shared=True)
    except OSError as error:
        raise StreamGateError("listen_failed", f"{url(opened)}: {error.strerror}") from error


def _bind(family: int, name: Any, settings: ServerSettings, *, shared: bool) -> socket.socket:
    """A TCP socket that listens; ``shared``: others of ours listen at this address already."""
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # The unspecified address takes IPv4 as well (RFC 3493 section 5.3).
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(name[0] != "::"))
        # The first is bound without sharing, so that another server at this address is noticed.
        if shared:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened.bind(name)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened.listen(settings.backlog)
        opened.setblocking(False)
        apply_options(opened, settings)
    except BaseException:
        opened.close()
        raise
    return opened


def _remove_dead(path: str) -> None:
    """Remove the file of a socket that nobody listens on."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EADDRINUSE, "there is a file that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _parse(setting: str, text: str) -> Address:
    if text.startswith(_UNIX) and len(text) > len(_UNIX):
        return Address(path=text.removeprefix(_UNIX))
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found["port"]) > 65535:
        raise StreamGateError("config_invalid", f"{setting}: {text!r} is no HOST:PORT, [V6]:PORT or unix:PATH")
    return Address(found["v6"] or found["host"], int(found["port"]))
