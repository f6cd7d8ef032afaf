"""Everybody comes at once to a title that no node has: each node asks the bucket for each byte once, for what Redis holds one does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import pytest

from tests.edge.nodes import RunningNode
from tests.faults.two_nodes import DEADLINE_S, Film, Origin, film_of, names, origin, two_nodes
from tests.services.fault_proxy import Fault
from tests.services.redis import RedisServer, fresh_prefix
from tests.services.seaweed import SeaweedFS

PATIENT = {"stall_timeout": 30.0, "deadline": 60.0, "connect_timeout": 30.0}


def overlapping(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Which (first, last) begin before another one of them has ended."""
    ordered = sorted(ranges)
    return [after for before, after in zip(ordered, ordered[1:], strict=False) if after[0] <= before[1]]


async def viewer(port: int, paths: Sequence[str], all_there: asyncio.Barrier) -> list[tuple[int, bytes]]:
    """Status and digest of all paths, one after the other, on one connection that was there before the crowd began."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    await all_there.wait()
    answers = []
    for path in paths:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        length = next(int(line.partition(":")[2]) for line in head if line.startswith("content-length:"))
        answers.append((int(head[0].split()[1]), digest(await reader.readexactly(length))))
    writer.close()
    return answers


def digest(body: bytes) -> bytes:
    return blake2b(body, digest_size=16).digest()


async def crowd(nodes: Sequence[RunningNode], paths: Sequence[str], count: int) -> Counter[tuple[str, int, bytes]]:
    """How many viewers, spread over the nodes, got which answer to which path."""
    all_there = asyncio.Barrier(count)
    answers = await asyncio.gather(*(viewer(nodes[n % len(nodes)].port, paths, all_there) for n in range(count)))
    told: Counter[tuple[str, int, bytes]] = Counter()
    for each in answers:
        told.update((path, *answer) for path, answer in zip(paths, each, strict=True))
    return told


async def all_at_once(behind: Origin, nodes: Sequence[RunningNode], film: Film, count: int) -> Counter[tuple[int, int]]:
    """A crowd opens a title and watches it; which ranges (first, last) the bucket was asked for, how often each."""
    told = await crowd(nodes, ["/v/film/main.m3u8"], count)
    assert [(status, times) for (_, status, _), times in told.items()] == [(200, count)], "one playlist for all"
    video, audio = names(nodes[0], "film")
    assert names(nodes[1], "film") == (video, audio), "both nodes call the same bytes the same"

    right = {f"{video}/{n}.m4s": film.video[n] for n in range(len(film.video))}
    right |= {f"{audio}/{n}.m4s": film.audio[n] for n in range(len(film.audio))}
    told = await crowd(nodes, list(right), count)
    assert told == Counter({(path, 200, digest(body)): count for path, body in right.items()})

    times = Counter((first, last or 0) for first, last in (read.range or (0, 0) for read in behind.reads("film.mp4")))
    # Two requests open a title, and each object takes one at most.
    assert len(times) <= 2 + len(right)
    return times


@pytest.mark.parametrize("count", [50, pytest.param(2000, marks=pytest.mark.slow)])
async def test_a_crowd_at_a_cold_title(seaweed: SeaweedFS, tmp_path: Path, count: int) -> None:
    film = await asyncio.to_thread(film_of, 24, 200_000)
    with origin(seaweed) as behind:
        behind.put(film.another(), "film.mp4")
        # So slow that all of them come while the first request is under way.
        behind.proxy.on(Fault(delay=DEADLINE_S / 4), "film.mp4", method="GET")
        with two_nodes(behind, tmp_path, s3=PATIENT) as nodes:
            times = await all_at_once(behind, nodes, film, count)
            # Both nodes ask for the same ranges, each for each once, and no two of these have a byte in common.
            assert set(times.values()) == {2}
            assert not overlapping(list(times))
            assert [node.total("origin_reads_total") for node in nodes] == [len(times)] * 2


@pytest.mark.parametrize("count", [50, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("held", ["all", pytest.param("audio", marks=pytest.mark.slow)])
async def test_a_crowd_at_a_site(
    seaweed: SeaweedFS, redis_server: RedisServer, tmp_path: Path, held: str, count: int
) -> None:
    """What Redis then holds one node reads, for both: index, manifests, and segments if they are small; all else each once."""
    film = await asyncio.to_thread(film_of, 24, 200_000)
    largest = {"all": max(map(len, film.video)), "audio": max(map(len, film.audio))}[held]
    patient = {"timeout": 30.0, "connect_timeout": 30.0, "lease": 20.0}
    redis = {"url": redis_server.url, "prefix": fresh_prefix(), "object_limit": largest, **patient}
    with origin(seaweed) as behind:
        behind.put(film.another(), "film.mp4")
        behind.proxy.on(Fault(delay=DEADLINE_S / 4), "film.mp4", method="GET")
        with two_nodes(behind, tmp_path, s3=PATIENT, redis=redis) as nodes:
            times = await all_at_once(behind, nodes, film, count)
            # One node opens it for both.
            opening = min(times)
            assert opening[0] == 0 and times.pop(opening) == 1
            # Video and audio lie interleaved: a range holds one segment of each, neither is read for the other again, and
            # no two end at one place. Where one begins, the node may have what was read to open the title, or may lack
            # some kB that the other has read with the one before.
            ends: Counter[int] = Counter()
            for (_, last), often in times.items():
                ends[last] += often
            once = 1 if held == "all" else 2
            assert 0 < len(ends) <= len(film.video) and max(ends.values()) == once
            assert sum((last + 1 - first) * often for (first, last), often in times.items()) < 1.05 * once * len(
                film.data
            )
            times[opening] = 1
            assert sum(times.values()) == sum(node.total("origin_reads_total") for node in nodes)
            assert sum(node.total("shared_flights_total", 'result="alone"') for node in nodes) == 0
