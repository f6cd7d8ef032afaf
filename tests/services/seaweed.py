"""A real S3: one SeaweedFS for the whole run of tests, started by the first that asks, and buckets in it."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

START_S = 30.0
_STEP_S = 0.05
_BEYOND = 10_000  # SeaweedFS listens on each of its ports plus this one too


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, each with the one that SeaweedFS adds to it."""
    found: list[int] = []
    held: list[socket.socket] = []
    try:
        while len(found) < count:
            # Both below 32768, from where on the kernel gives ports to connections.
            port = 12_000 + secrets.randbelow(10_700)
            pair = [socket.socket(), socket.socket()]
            held += pair
            try:
                for sock, number in zip(pair, (port, port + _BEYOND), strict=True):
                    sock.bind(("127.0.0.1", number))
            except OSError:
                continue
            found.append(port)
    finally:
        for sock in held:
            sock.close()
    return found


class SeaweedFS:
    """A running server: ``endpoint`` is its address, ``environment`` what a process needs that reads from it."""

    region = "us-east-1"

    def __init__(self, folder: Path) -> None:
        self.access_key = f"KEY{secrets.token_hex(8).upper()}"
        self.secret_key = f"secret{secrets.token_hex(16)}"
        self._folder = folder
        master, volume, filer, self.port = free_ports(4)
        self.endpoint = f"http://127.0.0.1:{self.port}"
        credentials = [{"accessKey": self.access_key, "secretKey": self.secret_key}]
        actions = ["Admin", "Read", "List", "Tagging", "Write"]
        config = folder / "s3.json"
        config.write_text(
            json.dumps({"identities": [{"name": "admin", "credentials": credentials, "actions": actions}]})
        )
        data = folder / "data"
        data.mkdir()
        from tests.conftest import find_program

        weed = find_program("weed")
        assert weed is not None
        command = [
            *(weed, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-metricsPort=0"),
            *(f"-master.port={master}", "-master.volumeSizeLimitMB=64", "-master.telemetry=false"),
            *(f"-volume.port={volume}", "-volume.max=2000"),
            *("-filer", f"-filer.port={filer}", "-s3", f"-s3.port={self.port}", f"-s3.config={config}"),
            *(
                f"-s3.localSocket={folder / 's3.sock'}",
                "-s3.domainName=localhost",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
            ),
        ]
        # A bucket takes one volume at a time in place of seven, and so there is room for one each test.
        environment = {**os.environ, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)

    @property
    def environment(self) -> dict[str, str]:
        """Credentials for the standard chain, and nothing of this machine's own."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    @cached_property
    def client(self) -> Any:
        """botocore's own client, blocking: what tests arrange the store with."""
        import botocore.config
        import botocore.session

        config = botocore.config.Config(s3={"addressing_style": "path"}, signature_version="s3v4")
        return botocore.session.Session().create_client(
            "s3",
            region_name=self.region,
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=config,
        )

    def make_bucket(self) -> str:
        """A bucket with nothing in it."""
        name = f"test-{secrets.token_hex(6)}"
        self.client.create_bucket(Bucket=name)
        return name

    def await_ready(self) -> None:
        """Return once it stores objects."""
        end = time.monotonic() + START_S
        while True:
            assert self.process.poll() is None, (self._folder / "log").read_text()[-4000:]
            try:
                self.client.put_object(Bucket=self.make_bucket(), Key="ready", Body=b"1")
                return
            except Exception:
                if time.monotonic() > end:
                    raise
                time.sleep(_STEP_S)

    def stop(self) -> None:
        """End it at once: it takes long to say goodbye, and nobody will want its data."""
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """The one server of this run."""
    server = SeaweedFS(tmp_path_factory.mktemp("seaweed"))
    try:
        server.await_ready()
        yield server
    finally:
        server.stop()


@pytest.fixture
def bucket(seaweed: SeaweedFS) -> str:
    """A bucket of one's own."""
    return seaweed.make_bucket()


@pytest.fixture
def s3_environment(seaweed: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> SeaweedFS:
    """This process finds its credentials as the standard chain does."""
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    return seaweed
