"""Real Redis: one server for the whole run of tests, one that wants TLS and a user, a cluster, and servers to be broken."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

from benchmarks.peers.certificate import Certificate, self_signed
from streamgate.core.settings import RedisSettings
from tests.services.seaweed import free_ports

START_S = 30.0
_STEP_S = 0.02
PATIENT: dict[str, Any] = {"connect_timeout": 20.0, "timeout": 20.0, "circuit_slow": 60.0}
"""Settings of a client that a busy machine does not confuse."""


def wait_for(check: Callable[[], Any], limit: float = START_S) -> Any:
    """What ``check`` gives as soon as that is true; a RedisError counts as not yet."""
    end = time.monotonic() + limit
    while True:
        with contextlib.suppress(RedisError):
            if found := check():
                return found
        assert time.monotonic() < end, f"not within {limit} s"
        time.sleep(_STEP_S)


@dataclass(frozen=True, slots=True)
class User:
    """An ACL user, who may do what a node needs and nothing else."""

    name: str = "streamgate"
    password: str = "correct-horse"

    @property
    def rules(self) -> list[str]:
        """The words of redis.conf, as docs/operations/redis.md gives them."""
        return [self.name, "on", f">{self.password}", "~streamgate:*", "+@all", "-@dangerous", "+info"]


class RedisServer:
    """A server without a file, so that it begins empty each time it is started."""

    def __init__(
        self,
        folder: Path,
        certificate: Certificate | None = None,
        user: User | None = None,
        options: tuple[str, ...] = (),
    ) -> None:
        self.port = free_ports(1)[0]
        self.url = f"{'rediss' if certificate else 'redis'}://127.0.0.1:{self.port}"
        self._folder = folder
        self._certificate = certificate
        folder.mkdir(parents=True, exist_ok=True)
        self._command = ["redis-server", *"--bind 127.0.0.1 --save  --appendonly no".split(" "), "--dir", str(folder)]
        self._command += ["--repl-diskless-sync-delay", "0"]
        if certificate:
            self._command += ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            self._command += ["--tls-cert-file", str(certificate.chain), "--tls-key-file", str(certificate.key)]
            self._command += ["--tls-ca-cert-file", str(certificate.chain)]
        else:
            self._command += ["--port", str(self.port)]
        if user:
            self._command += ["--user", *user.rules]
        self._command += options
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @cached_property
    def client(self) -> Any:
        """redis-py's own client, blocking: what tests arrange the server with; may do everything."""
        secure: dict[str, Any] = {}
        if self._certificate:
            chain, key = str(self._certificate.chain), str(self._certificate.key)
            secure = {"ssl": True, "ssl_ca_certs": chain, "ssl_certfile": chain, "ssl_keyfile": key}
        return Redis(port=self.port, socket_timeout=START_S, **secure)

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self._command, cwd=self._folder, stdout=log, stderr=log)
        try:
            wait_for(self._answers)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """kill -9."""
        self.client.close()  # which opens again when it is used
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """While the block runs, it takes what is sent, and answers nothing."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """While the block runs, it has no room: ``OOM command not allowed when used memory > 'maxmemory'``."""
        self.client.config_set("maxmemory", "1")
        try:
            yield
        finally:
            self.client.config_set("maxmemory", "0")

    def flush(self) -> None:
        """Have it forget everything."""
        self.client.flushall()

    def renew(self) -> None:
        """Have it be as it was when it had just been started."""
        self.client.replicaof("NO", "ONE")
        self.client.flushall()
        for user in set(self.client.acl_users()) - {"default"}:
            self.client.acl_deluser(user)

    def settings(self, prefix: str | None = None, **given: Any) -> RedisSettings:
        """A node's settings: the defaults but for a prefix of one's own."""
        if self._certificate:
            given.setdefault("ca", str(self._certificate.chain))
        return RedisSettings(url=self.url, prefix=prefix or fresh_prefix(), **given)

    def _answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, (self._folder / "log").read_text()[-2000:]
        return bool(self.client.ping())


def fresh_prefix() -> str:
    """What the keys of one test begin with."""
    return f"streamgate:{secrets.token_hex(6)}:"


class RedisCluster:
    """Three primaries, each with a replica that takes over within a few seconds."""

    def __init__(self, folder: Path, certificate: Certificate | None = None, user: User | None = None) -> None:
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"]
        options += ["--cluster-replica-validity-factor", "0"]
        self._ca = str(certificate.chain) if certificate else ""
        secure = ["--tls", "--cacert", self._ca] if certificate else []
        if certificate:
            options += ["--tls-cluster", "yes", "--tls-replication", "yes"]
        self.servers: list[RedisServer] = []
        try:
            for number in range(6):
                self.servers.append(RedisServer(folder / str(number), certificate, user, tuple(options)))
            nodes = [f"127.0.0.1:{server.port}" for server in self.servers]
            create = ["redis-cli", *secure, "--cluster", "create", *nodes, "--cluster-replicas", "1", "--cluster-yes"]
            subprocess.run(create, check=True, capture_output=True, timeout=START_S)
            wait_for(self.whole)
        except BaseException:
            self.stop()
            raise
        self.url = f"{'rediss' if certificate else 'redis'}://{','.join(nodes)}"

    def settings(self, prefix: str | None = None, **given: Any) -> RedisSettings:
        """A node's settings."""
        given.setdefault("ca", self._ca)
        return RedisSettings(url=self.url, cluster=True, prefix=prefix or fresh_prefix(), **given)

    def primary_of(self, key: str) -> RedisServer:
        """Who answers for ``key`` now."""
        alive = [server for server in self.servers if server.process is not None]
        slot = int(alive[0].client.cluster("KEYSLOT", key))
        for server in alive:
            if server.client.info("replication")["role"] == "master":
                for first, last, (_, port, *_), *_ in server.client.execute_command("CLUSTER SLOTS", NEVER_DECODE=True):
                    if first <= slot <= last and port == server.port:
                        return server
        raise RedisError("nobody answers for it now")

    def stop(self) -> None:
        """End all of it."""
        for server in self.servers:
            server.kill()

    def whole(self) -> bool:
        """Whether all nodes are there, and each primary has a replica that has all that was written to it."""
        told = [server.client.info("replication") for server in self.servers]
        linked = [each.get("master_link_status", "up") == "up" for each in told]
        written = {
            server.port: each["master_repl_offset"]
            for server, each in zip(self.servers, told, strict=True)
            if each["role"] == "master"
        }
        # What a replica lacks when its primary dies is lost.
        linked += [
            each["slave_repl_offset"] >= written.get(int(each["master_port"]), -1)
            for each in told
            if each["role"] == "slave"
        ]
        states = [server.client.cluster("INFO")["cluster_state"] for server in self.servers]
        return all(linked) and sum(each["role"] == "slave" for each in told) == 3 and set(states) == {"ok"}


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The one server of this run; whoever would break it takes one of his own."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def _breakable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def own_redis(_breakable: RedisServer) -> RedisServer:
    """A server to be broken: it is as new for each test."""
    if _breakable.process is None:
        _breakable.start()
    _breakable.renew()
    return _breakable


@pytest.fixture(scope="session")
def secure_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that speaks TLS only, with :class:`User` beside the default one."""
    with self_signed() as certificate:
        server = RedisServer(tmp_path_factory.mktemp("redis-tls"), certificate, User())
        yield server
        server.kill()


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """The one cluster of this run; only for slow tests, for it takes seconds to come up."""
    cluster = RedisCluster(tmp_path_factory.mktemp("redis-cluster"))
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def secure_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """The same, with TLS between all, and with :class:`User` beside the default one."""
    with self_signed() as certificate:
        cluster = RedisCluster(tmp_path_factory.mktemp("redis-cluster"), certificate, User())
        yield cluster
        cluster.stop()


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    """A cluster to be broken; only for slow tests."""
    cluster = RedisCluster(tmp_path)
    yield cluster
    cluster.stop()
