"""The auth role by itself, as a node's parent starts it: on a Unix socket, with a store and keys of its own."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers.ours import Sections
from benchmarks.peers.process import Server, folder, stopped
from streamgate.access import access_tokens, accounts, keyring
from streamgate.core.config import load
from streamgate.core.settings import Settings
from streamgate.storage import keys
from streamgate.storage.kv.rows import Write
from streamgate.storage.kv.sqlite import SqliteStore

_PLACE = Path(__file__).resolve().parents[2]
_BACKLOG = 1024
_LIFE_S = 86_400
ASSET = "film"
_DESCRIPTION = '[policy]\nkind = "allow"\n\n[[source]]\nfile = "a.mp4"\n'
# Counted, but never reached.
_RATES = {"starts_per_account": 1e6, "renewals_per_session": 1e6, "logins_per_address": 1e6}


@dataclass
class Auth(Server):
    """The process; ``unix`` is its socket, ``settings`` are those in force."""

    unix: str = ""
    settings: Settings = field(default_factory=Settings)

    def access_token(self, account: str) -> str:
        """As signing in gives one."""
        ring = keys.ring(self.settings)
        return access_tokens.issue(
            keyring.access_signers(ring, self.settings.tokens.site)[-1],
            issuer=self.settings.tokens.issuer,
            audience=self.settings.tokens.site,
            account=account,
            family=secrets.token_hex(16),
            id=secrets.token_hex(16),
            now=int(time.time()),
            life=_LIFE_S,
        )

    def public_key(self) -> bytes:
        """What its access tokens are verified with."""
        return keyring.access_signers(keys.ring(self.settings), self.settings.tokens.site)[-1].public

    def memory(self) -> float:
        """MB (10^6 bytes) of memory that the process holds."""
        told = Path(f"/proc/{self.processes[0].pid}/status").read_text()
        return next(int(line.split()[1]) for line in told.splitlines() if line.startswith("VmRSS:")) * 1024 / 1e6

    def answers(self) -> bool:
        """Whether it is there; raises OSError where it is not."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(1)
            asking.connect(self.unix)
            asking.sendall(b"GET /ready HTTP/1.1\r\nHost: auth\r\nConnection: close\r\n\r\n")
            return asking.recv(64).startswith(b"HTTP/1.1 200")


@contextlib.contextmanager
def auth(
    core: int | None, *, names: Sequence[str] = (), rows: Sequence[Write] = (), settings: Sections | None = None
) -> Iterator[Auth]:
    """The auth role on a store that holds ``rows``, for accounts of these ``names`` and an asset, ASSET, that all of them may play."""
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(folder())
        (own / "assets" / ASSET).mkdir(parents=True)
        (own / "assets" / ASSET / "asset.toml").write_text(_DESCRIPTION)
        chosen: dict[str, dict[str, Any]] = {"server": {"data": str(own)}, "auth": dict(_RATES)}
        if names:
            chosen["auth"]["accounts"] = str(_accounts(own / "accounts.toml", names))
        for section, values in (settings or {}).items():
            chosen.setdefault(section, {}).update(values)
        server = Auth("the auth role", 0, own, unix=str(own / "auth.sock"), settings=load(overrides=chosen))
        if rows:
            _fill(own / "state.sqlite", rows)
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(server.unix)
        listening.listen(_BACKLOG)
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)  # as long as it is open there is a parent
        config = os.memfd_create("config")
        orders = {
            "config": config, "overrides": chosen, "root": str(own / "assets"), "store": str(own / "state.sqlite"),
            "listening": listening.fileno(), "control": theirs.fileno(), "page": -1, "slot": 0,
        }  # fmt: skip
        stack.enter_context(_killed(server))
        words = [sys.executable, "-P", "-m", "streamgate.control.process"]
        with (own / "stderr").open("ab") as told, theirs:
            process = subprocess.Popen(
                [*(("taskset", "-c", str(core)) if core is not None else ()), *words],
                cwd=own,
                env={**os.environ, "PYTHONPATH": str(_PLACE)},
                stdin=subprocess.PIPE,
                stdout=told,
                stderr=told,
                pass_fds=(config, listening.fileno(), theirs.fileno()),
            )
            server.processes.append(process)
            assert process.stdin is not None
            process.stdin.write(json.dumps(orders).encode())
            process.stdin.close()
        os.close(config)
        server.wait()
        yield server


@contextlib.contextmanager
def _killed(server: Auth) -> Iterator[None]:
    """It leaves signals to its parent, but for this one."""
    try:
        with stopped(server):
            try:
                yield
            finally:
                for process in server.processes:
                    process.kill()
    finally:
        server.processes.clear()


def _accounts(path: Path, names: Sequence[str]) -> Path:
    """A file of accounts, all with one password, which nobody will use."""
    hashed = accounts.hash_password(secrets.token_hex(16), secrets.token_bytes(16))
    path.touch(0o600)
    path.write_text("[accounts]\n" + "".join(f'{name} = "{hashed}"\n' for name in names))
    return path


def _fill(path: Path, rows: Sequence[Write]) -> None:
    import asyncio

    async def fill() -> None:
        store = await SqliteStore.open(path)
        try:
            await store.write(rows)
        finally:
            await store.close()

    asyncio.run(fill())
