"""A site as small as can be: nodes of two workers each in front of one bucket, and a proxy between that breaks things."""

from __future__ import annotations

import contextlib
import functools
import http.client
import re
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.tiers.objects import HEADER, digest_of
from streamgate.media.presentation import Rendition
from streamgate.storage.assets import discover, open_asset
from tests.edge.nodes import RunningNode, node, until
from tests.media_factory import Audio, Video, make
from tests.services.fault_proxy import FaultProxy, Request, fault_proxy
from tests.services.seaweed import SeaweedFS

PREFIX = "films"
STALL_S, DEADLINE_S = 0.4, 2.0
# Impatient, so that tests are short; nothing that was made stays in memory, so that the disk and the bucket are seen.
S3 = {"connect_timeout": 0.4, "stall_timeout": STALL_S, "deadline": DEADLINE_S, "backoff": 0.05}
ORIGIN = {"list_interval": 0.1, "revalidate": 0.2}
EDGE = {"disk_bytes": 2**28, "memory_object": 0, "failure_ttl": 0.5, "scrub_rate": 0}


class Film:
    """What a file holds, cut here from the file itself: what a node must serve of it."""

    def __init__(self, path: Path) -> None:
        self.data = path.read_bytes()
        made = open_asset(discover(path)[0]).presentation
        with path.open("rb") as file:
            self.video, self.audio = (
                _segments(renditions[0], file.fileno()) for renditions in (made.video, made.audio)
            )
        self.spans = [made.video[0].segment(n).span for n in range(made.video[0].segments)]

    def another(self) -> bytes:
        """A file with the same segments and an ETag of its own."""
        content = secrets.token_bytes(64 + secrets.randbelow(64))
        return self.data + (8 + len(content)).to_bytes(4, "big") + b"free" + content


@functools.cache
def film_of(seconds: int = 12, bitrate: int = 3_000_000) -> Film:
    """Video and audio, interleaved, with the moov in front; segments of 4 s, and 1.5 MB unless told otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        make(path, Video(size=(640, 360), gop=50, bitrate=bitrate), Audio(), seconds=seconds)
        return Film(path)


def _segments(rendition: Rendition, fd: int) -> list[bytes]:
    return [rendition.segment(n).from_fd(fd) for n in range(rendition.segments)]


def names(running: RunningNode, asset: str) -> tuple[str, str]:
    """Where the film's video and audio are: paths without a slash at the end."""
    status, _, playlist = running.get(f"/v/{asset}/main.m3u8")
    assert status == 200, playlist
    found = [re.search(rf"{kind}[a-z0-9]*-[0-9a-f]{{16}}", playlist.decode()) for kind in "va"]
    video, audio = (f"/v/{asset}/{each[0]}" for each in found if each)
    return video, audio


def first_answers(running: RunningNode, asset: str) -> list[int]:
    """What each worker answers for the title as soon as it knows of it: the status of its playlist."""
    found = []
    with running.each_worker() as workers:
        for worker in workers:

            def answer(worker: http.client.HTTPConnection = worker) -> int:
                worker.request("GET", f"/v/{asset}/main.m3u8")
                told = worker.getresponse()
                told.read()
                return told.status if told.status not in (401, 404) else 0

            found.append(until(answer, "the title is known"))
    return found


def statuses(running: RunningNode, path: str) -> list[int]:
    """What each worker answers now."""
    found = []
    with running.each_worker() as workers:
        for worker in workers:
            worker.request("GET", path)
            answer = worker.getresponse()
            answer.read()
            found.append(answer.status)
    return found


@dataclass
class Origin:
    """A bucket, and the proxy through which nodes see it."""

    seaweed: SeaweedFS
    bucket: str
    proxy: FaultProxy

    @property
    def url(self) -> str:
        """Where the films are."""
        return f"s3://{self.bucket}/{PREFIX}"

    def put(self, data: bytes, name: str) -> str:
        """Store a file past the proxy; its ETag."""
        answer = self.seaweed.client.put_object(Bucket=self.bucket, Key=f"{PREFIX}/{name}", Body=data)
        return str(answer["ETag"]).strip('"')

    def reads(self, name: str = "") -> list[Request]:
        """What was asked for of an object's bytes, or of any object's."""
        return self.proxy.asked(f"/{name}" if name else ".mp4", "GET")


@contextlib.contextmanager
def origin(seaweed: SeaweedFS) -> Iterator[Origin]:
    """An empty bucket behind a proxy."""
    with fault_proxy(seaweed.port, http=True) as proxy:
        yield Origin(seaweed, seaweed.make_bucket(), proxy)


@contextlib.contextmanager
def in_front_of(behind: Origin, data: Path, **settings: Any) -> Iterator[RunningNode]:
    """A node that serves what is in the bucket; ``settings`` by section, on top of those above."""
    given: dict[str, Any] = {"origin": ORIGIN, "edge": EDGE, "prefetch": {"sources": "none"}}
    given["s3"] = {**S3, "endpoint": behind.proxy.endpoint, "region": behind.seaweed.region}
    for section, values in settings.items():
        given[section] = {**given.get(section, {}), **values} if isinstance(values, dict) else values
    environment = {**behind.seaweed.environment, **given.pop("environment", {})}
    with node(behind.url, data, environment=environment, **given) as running:
        yield running


@contextlib.contextmanager
def two_nodes(behind: Origin, data: Path, **settings: Any) -> Iterator[tuple[RunningNode, RunningNode]]:
    """Two of them, which share nothing but the bucket."""
    with in_front_of(behind, data / "one", **settings) as one, in_front_of(behind, data / "two", **settings) as two:
        yield one, two


def own_hosts(table: Path) -> tuple[str, ...]:
    """What runs a node for which ``table`` is /etc/hosts, where mounts may be made (:func:`tests.faults.mounted.available`)."""
    script = 'mount --bind "$1" "$0"; shift; exec "$@"'
    return ("unshare", "--map-root-user", "--mount", "sh", "-ec", script, "/etc/hosts", str(table))


def unfinished(data: Path) -> list[Path]:
    """What a node's disk tier has begun to write."""
    return list((data / "cache/1/fills").iterdir())


def file_of(data: Path, key: str) -> Path:
    """Where a node's disk tier has an object, if it has it."""
    return data / "cache/1/objects" / digest_of(key)[:2] / digest_of(key)


def stored(data: Path) -> dict[str, bytes]:
    """What a node's disk tier holds of segments: bodies by key."""
    found = {}
    for path in (data / "cache/1/objects").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            key = content[:HEADER].partition(b'"key":"')[2].partition(b'"')[0].decode()
            if key.endswith(".m4s"):
                found[key] = content[HEADER:]
    return found
