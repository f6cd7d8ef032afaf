"""The hot path: a protocol that answers cached, authorised GET and HEAD without leaving C, and hands everything else on."""

import asyncio
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any, Self, final, type_check_only
from typing import Protocol as Interface

from typing_extensions import Buffer

from streamgate.native.accesslog import AccessLog
from streamgate.native.cat import Verifier
from streamgate.native.cmcd import CmcdLog
from streamgate.native.leases import Leases
from streamgate.native.limiter import Limiter
from streamgate.native.receiver import Receiver
from streamgate.native.s3fifo import Cache
from streamgate.native.stored import Stored as Stored
from streamgate.native.tally import COUNTERS as COUNTERS
from streamgate.native.tally import LATENCIES as LATENCIES
from streamgate.native.tally import ROUTES as ROUTES
from streamgate.native.tally import STATUSES as STATUSES

@type_check_only
class Handler(Interface):
    """What answers the rest: a protocol that is given one whole head after another, or all that a connection brings from one on.

    It keeps the transport that :meth:`connection_made` gives it, and writes and closes by itself.
    """

    @property
    def idle(self) -> bool:
        """Whether it answers nothing at present and may be given a request: until then nobody else writes."""
    def connection_made(self, transport: Any, /) -> None: ...
    def connection_lost(self, exc: BaseException | None, /) -> None: ...
    def data_received(self, data: bytes, /) -> None: ...
    def eof_received(self) -> bool | None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def end(self) -> None:
        """End the connection, with the answer under way if there is one."""
    def abort(self) -> None:
        """Stop what is under way; the transport is aborted by the caller."""

@type_check_only
class Health(Interface):
    """Whose state "stopping" makes each answer its connection's last."""

    @property
    def state(self) -> str: ...

@final
class Factory:
    """Makes the protocols of one listener, for ``create_server`` or ``connect_accepted_socket``, and what they share.

    ``cache`` holds :class:`Stored` by canonical path behind any token, compressed forms by the path and ``;br`` and so on.
    ``verifier``: None where there are no tokens. ``leases``: what tokens' sessions are held by; None: they need none. ``open_assets``: ids (bytes) of what may be seen without a token; None: all.
    ``fallback(peer)`` makes the handler of a connection from that packed address. ``problem(code)`` gives a whole answer, which closes the connection.
    ``unsatisfiable(size, route, disk)`` gives what is sent with status 416. ``negotiate(accept_encoding)`` gives a coding's name, or "identity".
    ``counters``: a writable buffer of uint64, as many as COUNTERS. ``trusts(address)``: whether the peer is a proxy whose
    Forwarded and X-Forwarded-* count: ``client(peer, x_forwarded_for)`` gives the packed address of the client, and whether it
    is a proxy too; Forwarded goes to the handler.
    ``cutter(path, gated)`` gives what is in no tier but can be cut at once, or None; it is asked for whole bodies only.
    ``by_address`` and ``by_token`` (by its session's handle) are asked before each answer; what they refuse goes to the handler.
    ``plain``: the exact types of transports whose socket may be written to directly. ``by_origin``: answers differ by Origin.
    Limits: bytes of ``line``, ``field`` and ``head``, number of ``fields`` and ``connections``, of these from one address
    ``per_address`` (a trusted proxy's and a Unix socket's count for nobody); timeouts in s.
    Raises ValueError where the counters do not fit.
    """

    def __new__(
        cls,
        loop: asyncio.AbstractEventLoop,
        *,
        cache: Cache[Stored],
        verifier: Verifier | None = None,
        leases: Leases | None = None,
        open_assets: AbstractSet[bytes] | None = None,
        health: Health,
        fallback: Callable[[bytes], Handler],
        problem: Callable[[str], bytes],
        unsatisfiable: Callable[[int, str, bool], Stored],
        negotiate: Callable[[str], str],
        counters: Buffer,
        trusts: Callable[[bytes], bool] | None = None,
        client: Callable[[bytes, str], tuple[bytes, bool]] | None = None,
        cutter: Callable[[bytes, bool], Stored | None] | None = None,
        by_address: Limiter | None = None,
        by_token: Limiter | None = None,
        log: AccessLog | None = None,
        reports: CmcdLog | None = None,
        plain: tuple[type, ...] = (),
        by_origin: bool = False,
        per_address: int = 1024,
        line: int = 8190,
        field: int = 8190,
        fields: int = 100,
        head: int = 65536,
        connections: int = 10000,
        head_timeout: float = 10,
        keepalive_timeout: float = 75,
        send_timeout: float = 60,
    ) -> Self: ...
    def __call__(self, peer: bytes | None = None) -> Protocol:
        """A protocol; ``peer`` is the client's packed address where somebody else than the socket knows it.

        Raises ValueError where it has not 4, 16 or no bytes.
        """
    @property
    def cache(self) -> Cache[Stored]: ...
    @property
    def verifier(self) -> Verifier | None: ...
    @property
    def connections(self) -> set[Protocol]:
        """Those that are open."""
    open_assets: AbstractSet[bytes] | None
    emptied: Callable[[], object] | None
    """Called when the last connection has ended."""
    def sweep(self) -> None:
        """Look at every connection's time limits and hand the log on; goes on by itself while there are connections."""

@final
class Protocol(Receiver):
    """One connection: an asyncio protocol, though not by inheritance."""

    def __new__(cls, factory: Factory) -> Self: ...
    def connection_made(self, transport: Any) -> None: ...
    def connection_lost(self, exc: BaseException | None) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> bool | None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def go_on(self) -> None:
        """After an answer that took its time: end, or take up what was put aside; called by the loop."""
    def end(self) -> None:
        """End the connection: now if it is idle, else with the answer under way."""
    def abort(self) -> None:
        """Cut the connection, whatever it is doing."""
    def again(self, data: bytes) -> bool:
        """Answer a whole head after all that the handler was given, and has not begun with, in its turn: what it asks for may be
        at hand by now. False: it stays the handler's.
        """
    @property
    def peer(self) -> bytes:
        """The client's packed address; b"" where it is not known."""
    @property
    def direct(self) -> bool:
        """Whether answers go straight to the socket: never under TLS."""
