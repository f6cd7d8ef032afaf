"""S3 is slow, refuses, cuts, lies, or is not found: right bytes, a clear 5xx in time, or a connection that ends too early."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.edge.nodes import RunningNode, until
from tests.faults import mounted
from tests.faults.test_tiers_faults import Viewer, judge
from tests.faults.two_nodes import (
    DEADLINE_S,
    STALL_S,
    Film,
    Origin,
    film_of,
    first_answers,
    in_front_of,
    names,
    origin,
    own_hosts,
    statuses,
    stored,
    unfinished,
)
from tests.services.fault_proxy import Fault
from tests.services.seaweed import SeaweedFS

ATTEMPTS = 4
CUT, SHORT = 600_000, 200_000  # into a segment of 1.5 MB
WAIT = 10.0


def often(cases: Iterable[object], *everyday: object) -> list[object]:
    """All of them, the others marked as slow: there are many, and each needs a film of its own."""
    return [case if case in everyday else pytest.param(case, marks=pytest.mark.slow) for case in cases]


@pytest.fixture(scope="module")
def film() -> Film:
    return film_of()


@pytest.fixture(scope="module")
def behind(seaweed: SeaweedFS) -> Iterator[Origin]:
    with origin(seaweed) as made:
        yield made


@pytest.fixture(scope="module")
def running(behind: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    # One test's retries are not to be missing in the next: the budget of these has a test of its own.
    with in_front_of(behind, tmp_path_factory.mktemp("node"), s3={"retry_ratio": 1.0}) as started:
        yield started


@dataclass
class Title:
    """A film that nobody has watched; ``name`` is its object's."""

    running: RunningNode
    behind: Origin
    film: Film
    name: str
    video: str = ""

    @property
    def path(self) -> str:
        """Of its second segment."""
        return f"{self.video}/1.m4s"

    def watch(self) -> tuple[int, int, bytes]:
        """Status, promised and received bytes of the second segment."""
        return Viewer(self.running.port, self.path).read()

    def break_(self, fault: Fault, times: int | None = None) -> None:
        """From now on."""
        self.behind.proxy.forget()
        self.behind.proxy.on(fault, f"/{self.name}", method="GET", times=times)

    def is_well(self) -> None:
        """Nothing unfinished is left; what is asked for again is right, and stored so."""
        self.behind.proxy.heal()
        data, right = self.running.data, self.film.video[1]
        until(lambda: not unfinished(data), "the end of all leftovers")
        assert stored(data).get(self.path) in (None, right)
        until(lambda: statuses(self.running, self.path) == [200, 200], "it is well", WAIT)
        assert self.watch() == (200, len(right), right)
        until(lambda: stored(data).get(self.path) == right, "it is stored")


@pytest.fixture
def title(running: RunningNode, behind: Origin, film: Film, request: pytest.FixtureRequest) -> Iterator[Title]:
    made = Title(running, behind, film, f"film{abs(hash(request.node.name)):x}.mp4")
    behind.proxy.heal()
    behind.put(film.another(), made.name)
    asset = made.name.removesuffix(".mp4")
    assert first_answers(running, asset) == [200, 200]
    made.video, _ = names(running, asset)
    yield made
    behind.proxy.heal()


ONCE = {
    "slow": Fault(delay=STALL_S / 2),
    "silent": Fault(delay=WAIT),
    "reset": Fault(reset=True),
    "cut in mid-body": Fault(cut_after=CUT),
    "silent in mid-body": Fault(stall_after=CUT),
    "short": Fault(resize=-SHORT, honest=False),
    "short, and says so": Fault(resize=-SHORT),
    "long": Fault(resize=1000, honest=False),
    "long, and says so": Fault(resize=1000),
    "403": Fault(403),
    "500": Fault(500),
    "503": Fault(503, {"Retry-After": "1"}),
}
ONE_REQUEST = ("slow", "long")  # what follows an answer is no part of it
GOES_ON = ("cut in mid-body", "silent in mid-body", "short")


@pytest.mark.parametrize("what", often(ONCE, "cut in mid-body", "short, and says so"))
def test_once(title: Title, what: str) -> None:
    """One answer is broken: viewers get the right bytes, and the store one request more, for what is missing and nothing else."""
    title.break_(ONCE[what], times=1)
    right = title.film.video[1]
    began = time.monotonic()
    assert title.watch() == (200, len(right), right)
    assert time.monotonic() - began < DEADLINE_S + STALL_S
    reads = title.behind.reads(title.name)
    assert len(reads) == (1 if what in ONE_REQUEST else 2)
    assert len({read.headers["if-match"] for read in reads}) == 1
    first, last = reads[0].range, reads[-1].range
    assert first is not None and last is not None and first[1] == last[1]
    if what in GOES_ON:
        assert last[0] == first[0] + reads[0].sent > first[0]
    else:
        assert last == first
    if what == "503":
        assert reads[1].at - reads[0].at >= 1
    title.is_well()


FOR_GOOD = {
    "silent": (Fault(delay=WAIT), 503),
    "reset": (Fault(reset=True), 503),
    "short, and says so": (Fault(resize=-SHORT), 503),
    "long, and says so": (Fault(resize=1000), 503),
    "403": (Fault(403), 502),
    "404": (Fault(404), 503),
    "500": (Fault(500), 503),
    "503 for longer than anybody waits": (Fault(503, {"Retry-After": "60"}), 503),
    "another version": (Fault(headers={"ETag": '"another"'}), 503),
}


@pytest.mark.parametrize("what", often(FOR_GOOD, "404", "another version"))
def test_for_good(title: Title, what: str) -> None:
    """No answer is right: a crowd gets a clear 5xx within the deadline, for few requests, and the right bytes when it is over."""
    fault, expected = FOR_GOOD[what]
    title.break_(fault)
    began = time.monotonic()
    viewers = [Viewer(title.running.port, title.path) for _ in range(20)]
    with ThreadPoolExecutor(len(viewers)) as pool:
        answers = list(pool.map(Viewer.read, viewers))
    assert {status for status, _, _ in answers} == {expected}
    assert time.monotonic() - began < DEADLINE_S + 1
    assert len(title.behind.reads(title.name)) <= 2 * ATTEMPTS, "each worker may find out"
    title.is_well()


@pytest.mark.parametrize("what", often(["reset", "404", "503", "silent"], "reset"))
def test_for_good_in_mid_body(title: Title, what: str) -> None:
    """It breaks when much has been sent, and nothing more comes: what viewers have is right, and visibly not all."""
    rest = {"reset": Fault(reset=True), "404": Fault(404), "503": Fault(503), "silent": Fault(delay=WAIT)}[what]
    title.break_(Fault(cut_after=CUT), times=1)
    title.behind.proxy.on(rest, f"/{title.name}", method="GET")
    began = time.monotonic()
    viewers = [Viewer(title.running.port, title.path) for _ in range(6)]
    with ThreadPoolExecutor(len(viewers)) as pool:
        answers = list(pool.map(Viewer.read, viewers))
    assert time.monotonic() - began < DEADLINE_S + 1
    assert judge(answers, title.film.video[1]) <= {"cut", "refused"}
    assert max(len(got) for _, _, got in answers) > 0, "somebody was sent something"
    assert len(title.behind.reads(title.name)) <= 1 + 2 * ATTEMPTS
    title.is_well()


@pytest.mark.parametrize("honours", often([True, False], True), ids=["If-Match is honoured", "If-Match is ignored"])
def test_replaced_between_two_ranges(title: Title, film: Film, honours: bool) -> None:
    """The film is another when the rest of a segment is asked for: no byte of it is mixed with the old ones."""
    new = film.another()
    title.break_(Fault(cut_after=CUT), times=1)
    told: dict[str, str] = {}

    def replaced(_: object) -> bool:
        told.setdefault("etag", title.behind.put(new, title.name))
        return True

    # Where the condition is ignored, an answer of the old version's bytes comes with the new one's ETag.
    later = Fault() if honours else Fault(headers={"ETag": '"another"'})
    title.behind.proxy.on(later, f"/{title.name}", method="GET", when=replaced if honours else lambda _: True)
    answer = title.watch()
    assert judge([answer], film.video[1]) <= {"cut", "refused"} and (
        answer[0] != 200 or answer[1] == len(film.video[1])
    )
    assert title.path not in stored(title.running.data)
    title.behind.proxy.heal()
    if not honours:
        title.is_well()
        return
    assert told
    asset = title.name.removesuffix(".mp4")
    old = title.video
    title.video = until(lambda: (name := names(title.running, asset)[0]) != old and name, "the new film's names")
    title.is_well()
    until(lambda: statuses(title.running, f"{old}/1.m4s") == [410, 410], "the old film's name is gone")


@pytest.mark.slow
def test_a_title_that_nobody_has_opened(running: RunningNode, behind: Origin, film: Film) -> None:
    """Its index cannot be read, or is cut: a clear 5xx, or the right answer after another attempt."""
    for number, (fault, times, expected) in enumerate(
        [
            (Fault(cut_after=1000), 1, 200),
            (Fault(503), 1, 200),
            (Fault(reset=True), None, 503),
            (Fault(delay=WAIT), None, 503),
            (Fault(403), None, 502),
            (Fault(404), None, 503),
        ]
    ):
        asset = f"new{number}"
        behind.proxy.heal()
        behind.proxy.forget()
        behind.proxy.on(fault, f"/{asset}.mp4", method="GET", times=times)
        behind.put(film.another(), f"{asset}.mp4")
        assert first_answers(running, asset) == [expected] * 2, fault
        behind.proxy.heal()
        path = f"/v/{asset}/main.m3u8"
        until(lambda path=path: statuses(running, path) == [200, 200], "it is well")  # type: ignore[misc]
        answer = running.get(f"{names(running, asset)[0]}/0.m4s")
        assert (answer[0], answer[2] == film.video[0]) == (200, True)


@pytest.mark.slow
def test_no_retry_storm(seaweed: SeaweedFS, film: Film, tmp_path: Path) -> None:
    """Nothing is answered for a while, and viewers ask again and again: requests are those of a calm day and a few more."""
    titles = [f"film{n}" for n in range(6)]
    with origin(seaweed) as behind:
        for title in titles:
            behind.put(film.another(), f"{title}.mp4")
        with in_front_of(behind, tmp_path / "data", edge={"failure_ttl": 1.0}) as running:
            paths = [f"{names(running, title)[0]}/{n}.m4s" for title in titles for n in (1, 2)]
            behind.proxy.forget()
            behind.proxy.on(Fault(503), ".mp4", method="GET")
            began = time.monotonic()

            def insist(path: str) -> int:
                asked = 0
                while time.monotonic() - began < 3:
                    assert running.get(path)[0] == 503
                    asked += 1
                return asked

            with ThreadPoolExecutor(len(paths)) as pool:
                asked = sum(pool.map(insist, paths))
            reads = behind.proxy.asked(".mp4", "GET")
            fills = running.total("fills_total", "begun")
            others = sum(running.total("origin_requests_total", each) for each in ("head_object", "list_objects_v2"))
            # By the budget: 20 at once in each of two workers, and one in five of whatever is asked, lists and ETags too.
            assert len(reads) <= fills + (fills + others) * 0.2 + 2 * 20 + 1
            assert fills <= len(paths) * 2 * 4 and asked > 2 * fills
            behind.proxy.heal()
            for path in paths:
                until(lambda path=path: running.get(path)[0] == 200, "it is well")  # type: ignore[misc]


@pytest.mark.slow
def test_a_name_that_leads_nowhere(seaweed: SeaweedFS, tmp_path: Path) -> None:
    """The node starts, says what is wrong in time, and lives."""
    with origin(seaweed) as behind:
        settings = {"s3": {"endpoint": "http://s3.invalid"}}
        with in_front_of(behind, tmp_path / "data", **settings) as running:
            began = time.monotonic()
            assert running.get("/v/film/main.m3u8")[0] == 503
            assert time.monotonic() - began < DEADLINE_S + 1
            assert running.get("/health/live")[0] == 200


@pytest.mark.slow
@pytest.mark.parametrize("hosts", ["mount"] * mounted.available())
def test_a_name_that_is_gone_for_a_while(seaweed: SeaweedFS, film: Film, tmp_path: Path, hosts: str) -> None:
    """What is stored is served, what is not is refused in time; when the name is back, so is all else."""
    table = tmp_path / "hosts"
    table.write_text("127.0.0.1 localhost store.test\n")
    with origin(seaweed) as behind:
        behind.put(film.another(), "film.mp4")
        settings = {"s3": {"endpoint": f"http://store.test:{behind.proxy.port}"}, "origin": {"held_bytes": 2**20}}
        through = own_hosts(table)
        with in_front_of(behind, tmp_path / "data", through=through, **settings) as running:
            video, _ = names(running, "film")
            path = f"{video}/2.m4s"
            assert [running.get(f"{video}/{n}.m4s")[2] == film.video[n] for n in (0, 2)] == [True] * 2
            table.write_text("127.0.0.1 localhost\n")

            def refused() -> bool:
                # Connections that there are need no name, nor does what is stored.
                behind.proxy.kill()
                assert running.admin("POST", "/purges", {"url": path, "soft": False})[0] == 200
                return running.get(path)[0] == 503

            until(refused, "nobody knows the name any more", 30)
            assert running.get(f"{video}/0.m4s")[2] == film.video[0]
            table.write_text("127.0.0.1 localhost store.test\n")
            until(lambda: running.get(f"{video}/1.m4s")[2] == film.video[1], "the name again")
