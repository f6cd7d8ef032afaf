"""The first region is dead for a while: viewers get their bytes from the second within the time of one request, and later from the first again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.edge.nodes import RunningNode, until
from tests.faults.two_nodes import (
    Film,
    Origin,
    film_of,
    first_answers,
    in_front_of,
    names,
    origin,
    statuses,
)
from tests.services.fault_proxy import Fault, Request
from tests.services.seaweed import SeaweedFS

TITLES = ("one", "two", "three", "four")
# A busy machine is no dead region.
SILENT_S, LONGEST_S = 1.0, 5.0
PATIENCE = {"stall_timeout": SILENT_S, "deadline": LONGEST_S, "replica_retry": 0.3, "replica_successes": 2}


@dataclass
class Regions:
    """A node, and the two buckets that it knows."""

    running: RunningNode
    first: Origin
    second: Origin
    film: Film

    def watch(self, title: str, number: int) -> float:
        """Seconds until a whole segment was there, which is right."""
        began = time.monotonic()
        status, _, body = self.running.get(f"{names(self.running, title)[0]}/{number}.m4s")
        took = time.monotonic() - began
        assert (status, body == self.film.video[number]) == (200, True)
        return took

    def forget(self) -> None:
        """Count anew."""
        self.first.proxy.forget()
        self.second.proxy.forget()

    def told(self, event: str) -> int:
        """How often a worker said so of the first bucket."""
        return sum(each["event"] == event and self.first.bucket in each["store"] for each in self.running.events())


def of_viewers(reads: list[Request]) -> list[Request]:
    """Without those that only try whether there is an answer: of one byte."""
    return [read for read in reads if read.range is not None and read.range[0] != read.range[1]]


@pytest.fixture(scope="module")
def film() -> Film:
    return film_of()


@pytest.fixture
def regions(seaweed: SeaweedFS, film: Film, tmp_path: Path) -> Iterator[Regions]:
    with origin(seaweed) as first, origin(seaweed) as second:
        for title in TITLES:
            data = film.another()
            assert first.put(data, f"{title}.mp4") == second.put(data, f"{title}.mp4"), "they agree"
        replica = f"{second.url}?endpoint={second.proxy.endpoint}"
        with in_front_of(first, tmp_path / "data", s3={**PATIENCE, "replicas": [replica]}) as running:
            for title in TITLES:
                assert first_answers(running, title) == [200, 200]
            yield Regions(running, first, second, film)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["refuses", "is silent"])
def test_dead_for_a_while(regions: Regions, how: str) -> None:
    regions.forget()
    regions.watch("one", 0)
    assert of_viewers(regions.first.reads("one.mp4")) and not of_viewers(regions.second.reads("one.mp4"))

    # The region dies. The first who notice wait for one answer that does not come, and for no other.
    regions.forget()
    if how == "refuses":
        regions.first.proxy.refuse()
    else:
        regions.first.proxy.network.stalled = True
    began = time.monotonic()
    assert regions.watch("one", 1) < LONGEST_S
    # Whoever opens, lists or looks for changes does not notice either.
    look = "/v/one/main.m3u8"
    until(
        lambda: statuses(regions.running, look) == [200, 200] and regions.told("a bucket is down") == 2, "it is known"
    )
    assert [regions.watch("two", n) < SILENT_S for n in range(3)] == [True] * 3
    assert len(of_viewers(regions.second.reads("two.mp4"))) >= 3
    assert all(statuses(regions.running, f"/v/{title}/main.m3u8") == [200, 200] for title in TITLES)
    if how == "is silent":
        late = [read for read in of_viewers(regions.first.reads()) if read.at > began + 4 * SILENT_S]
        assert not late, "nobody's request is tried there any more"

    # It comes back, and is preferred again after some good answers in a row.
    regions.first.proxy.network.stalled = False
    regions.first.proxy.heal()
    until(lambda: regions.told("a bucket is well again") == 2, "both workers trust it again")
    regions.forget()
    for n in range(3):
        regions.watch("three", n)
    assert of_viewers(regions.first.reads("three.mp4")) and not of_viewers(regions.second.reads("three.mp4"))
    assert (regions.told("a bucket is down"), regions.told("a bucket is well again")) == (2, 2), "it did not flap"
    assert regions.running.total("origin_replicas_down") == 0


@pytest.mark.slow
def test_every_other_answer_is_wrong(regions: Regions) -> None:
    """Neither dead nor well: each request that fails goes to the other region at once, and nobody changes sides."""
    seen = 0

    def every_other(_: Request) -> bool:
        nonlocal seen
        seen += 1
        return seen % 2 == 0

    regions.first.proxy.on(Fault(503), ".mp4", method="GET", when=every_other)
    regions.forget()
    for title in TITLES:
        for number in range(3):
            assert regions.watch(title, number) < LONGEST_S
    first, second = of_viewers(regions.first.reads()), of_viewers(regions.second.reads())
    failed = [read for read in first if read.status == 503]
    assert 0 < len(failed) == len(second) <= len(first) / 2 + 1
    assert [read.range for read in failed] == [read.range for read in second]
    assert regions.told("a bucket is down") == 0
