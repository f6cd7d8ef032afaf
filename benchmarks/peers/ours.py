"""StreamGate itself, as a process like the others: one worker, and all that is on in production."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.certificate import Certificate
from benchmarks.peers.process import Server, Word, folder, free_port, stopped
from streamgate.access import keys, tokens
from streamgate.access.keys import Defaults, SharedKey

_PLACE = Path(__file__).resolve().parents[2]
_LIFETIME_S = 86400
# Counted, but never reached: all requests of a benchmark come from one address, most with one token.
_LIMITS = {f"{what}_per_{whom}": 1_000_000_000 for what in ("requests", "burst") for whom in ("address", "token")}
_LIMITS["connections_per_address"] = 1_000_000
Sections = Mapping[str, Mapping[str, Any]]


@dataclass
class Ours(Server):
    """The edge. ``key`` signs its tokens; ``token`` is what its paths are behind, nothing where it is open to all.

    ``plain`` is the port that speaks HTTP, ``port`` itself where there is no TLS.
    """

    plain: int = 0
    key: SharedKey | None = None
    token: str = ""

    def path(self, path: str) -> str:
        """``path`` behind the token."""
        return f"/t/{self.token}{path}" if self.token else path

    def answers(self) -> bool:
        """Whether it is ready; raises OSError. The parent listens long before its workers serve."""
        asking = http.client.HTTPConnection("127.0.0.1", self.plain, timeout=5)
        try:
            asking.request("GET", "/health/ready")
            return asking.getresponse().status == 200
        except http.client.HTTPException:
            return False
        finally:
            asking.close()

    def counted(self) -> tuple[int, int]:
        """Requests that its metrics know, and how many of them were answered natively."""
        series: dict[str, float] = json.loads(self.admin("GET", "/counters"))
        everything = sum(value for name, value in series.items() if name.startswith("streamgate_requests_total"))
        return int(everything), int(series.get("streamgate_native_answers_total", 0))

    def logged(self) -> int:
        """Lines of its access log, wherever in its folder that is."""
        found = 0
        for place in self.folder.glob("*"):
            if place.is_file():
                with place.open("rb") as lines:
                    found += sum(b'"route"' in line for line in lines)
        return found

    def mint(self, asset: str, session: bytes | None = None) -> str:
        """A new token: issuer, audience, expiry, id, version and path; of a session of its own where none is given."""
        assert self.key is not None
        ends = int(time.time()) + _LIFETIME_S
        return tokens.mint(self.key, asset=asset, session=session or secrets.token_bytes(16), expires=ends)

    def session(self, asset: str) -> bytes:
        """A session that the auth role knows."""
        told = json.loads(self._ask(f"data/auth-{self.plain}.sock", "POST", "/sessions", {"asset": asset}))
        return bytes.fromhex(told["session"])

    def admin(self, method: str, path: str, body: object = None) -> bytes:
        """Ask the operator's listener; raises RuntimeError where it refuses."""
        return self._ask("admin.sock", method, path, body)

    def _ask(self, name: str, method: str, path: str, body: object) -> bytes:
        asking = http.client.HTTPConnection("localhost")
        asking.sock = socket.socket(socket.AF_UNIX)
        try:
            asking.sock.settimeout(30)
            asking.sock.connect(str(self.folder / name))
            asking.request(
                method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"}
            )
            answer = asking.getresponse()
            told = answer.read()
        finally:
            asking.close()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status}: {told.decode()}")
        return told


def toml(sections: Sections) -> str:
    """A settings file. JSON's texts, numbers, booleans and lists of them are TOML's too."""
    lines = []
    for section, values in sections.items():
        lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n".join([*lines, ""])


@contextlib.contextmanager
def ours(
    assets: Path | str,
    core: int | None,
    *,
    asset: str,
    gated: bool = True,
    tiers: bool = True,
    tls: Certificate | None = None,
    workers: int = 1,
    settings: Sections | None = None,
    environment: Mapping[str, str] | None = None,
    prepare: Callable[[Path], None] | None = None,
) -> Iterator[Ours]:
    """StreamGate on ``assets``, a folder or a store's address: with a token for ``asset`` where ``gated``, with nothing
    kept without ``tiers``.

    ``settings`` are laid over those chosen here. ``prepare`` may put something into the data folder.
    """
    with folder() as own:
        port = free_port()
        server = Ours("StreamGate", free_port() if tls else port, own, plain=port)
        chosen: dict[str, dict[str, Any]] = {
            "server": {"port": port, "workers": workers, "data": str(own / "data")},
            "admin": {"socket": str(own / "admin.sock")},
            "limits": _LIMITS,
            "log": {"format": "json"},
            "edge": {"require_token": gated, **({} if tiers else {"cache_bytes": 0, "disk_bytes": 0})},
            # Tokens are made here: no role beside the workers knows of their sessions.
            "auth": {"enabled": False},
            "tokens": {"keys": str(own / "keys"), "without_session": True},
        }
        if tls:
            chosen["tls"] = {"listen": [f"127.0.0.1:{server.port}"], "certificate": str(tls.both)}
        for section, values in (settings or {}).items():
            chosen.setdefault(section, {}).update(values)
        (own / "streamgate.toml").write_text(toml(chosen))
        server.key = _key(own / "keys")
        server.token = server.mint(asset) if gated else ""
        if prepare is not None:
            (own / "data").mkdir()
            prepare(own / "data")
        with stopped(server):
            command: list[Word] = [sys.executable, "-m", "streamgate.cli", "serve", assets]
            server.run(
                [*command, "--config", own / "streamgate.toml"],
                core,
                {**(environment or os.environ), "PYTHONPATH": str(_PLACE)},
            )
            server.wait()
            yield server


def _key(place: Path) -> SharedKey:
    """A new key, in the file that the server reads."""
    place.mkdir(mode=0o700)
    file = place / "site.toml"
    file.touch(mode=0o600)
    file.write_text(keys.write("benchmark-1", secrets.token_bytes(keys.SECRET)))
    made = keys.parse(file.read_bytes(), file.name, Defaults("streamgate", ("local",)))
    assert isinstance(made, SharedKey)
    return made
