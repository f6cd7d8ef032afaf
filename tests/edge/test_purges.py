"""Purges: what is meant by one, what was made before it, and what memory, disk and flights make of that."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge import purges
from edge.cors import Cors
from edge.entries import IMMUTABLE, Entry
from edge.purges import SLACK_S, Purge, Purges, asked, assets_of, decode, matcher
from edge.threads import Pool
from edge.tiers.claims import Claim
from edge.tiers.disk import DiskTier
from edge.tiers.fills import Fills
from edge.tiers.memory import MemoryTier
from edge.tiers.negatives import Negatives
from edge.tiers.tier import Terms
from streamgate.core.settings import EdgeSettings
from streamgate.core.telemetry import Telemetry
from streamgate.errors import StreamGateError
from streamgate.native.s3fifo import Cache
from streamgate.storage.kv.events import Event

V, A = "v540-0123456789abcdef", "aen-0123456789abcdef"
SEGMENT = f"/v/film/{V}/3.m4s"
TAGS = {"film": ("season-1",), "other": ()}
TERMS = Terms("public", "segment")


def event(number: int, text: str, at: float | None = None, until: int | None = None) -> Event:
    """What the feed brings when somebody asked for this."""
    return Event(number, "purge", asked(text, time.time() if at is None else at).encode(), until)


class Clock:
    """Both clocks of a process."""

    def __init__(self) -> None:
        self.wall = 1_000_000.0
        self.counter = 100.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def held(clock: Clock) -> Purges:
    return Purges(1000, lambda asset: TAGS.get(asset, ()), lambda: clock.wall, lambda: clock.counter)


# --- what is asked for


@pytest.mark.parametrize(
    ("text", "kind", "subject"),
    [
        ('{"url": "/v/film/main.mpd"}', "url", "/v/film/main.mpd"),
        ('{"url": "https://cdn.example/v/film/main.mpd?x=1"}', "url", "/v/film/main.mpd"),
        ('{"url": "/t/abc.def/v/film/main.mpd"}', "url", "/v/film/main.mpd"),
        ('{"prefix": "/v/fi"}', "prefix", "/v/fi"),
        ('{"prefix": "/v/"}', "prefix", "/v/"),
        ('{"asset": "film"}', "asset", "film"),
        ('{"tag": "kind:segment"}', "tag", "kind:segment"),
        ('{"tag": "season-1"}', "tag", "season-1"),
    ],
)
def test_what_can_be_asked_for(text: str, kind: str, subject: str) -> None:
    for soft in (False, True):
        purge = asked(json.dumps({**json.loads(text), "soft": soft}), 1234.5)
        assert (purge.kind, purge.subject, purge.soft, purge.at) == (kind, subject, soft, 1234)
        assert decode(purge.encode()) == purge


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "null", '{"url": 1}', '{"soft": true}', '{"asset": "a", "tag": "b"}', '{"asset": "film", "soft": 1}',
        '{"host": "x"}', '{"url": "/assets.json"}', '{"url": "/v/../x"}', '{"url": "v/film"}', '{"url": "/v/%66ilm/main.mpd"}',
        '{"prefix": ""}', '{"prefix": "/"}', '{"prefix": "/v"}', '{"asset": "a/b"}', '{"asset": ""}', '{"asset": "*"}',
        '{"tag": "a,b"}', '{"tag": ""}', '{"tag": "other:x"}', '{"tag": "' + "x" * 65 + '"}', '{"url": "/v/' + "x" * 1100 + '"}',
    ],
)  # fmt: skip
def test_what_cannot(text: str) -> None:
    with pytest.raises(StreamGateError) as caught:
        asked(text, 0)
    assert caught.value.code in ("request_malformed", "path_malformed")


@pytest.mark.parametrize(
    "subject",
    [b"", b"{}", b"[" * 2000, b"\xff", b"[1]", b'{"url":"/v/a","soft":false,"at":"x","name":"n"}', b"x" * 3000],
)
def test_an_entry_that_is_none_changes_nothing(held: Purges, subject: bytes) -> None:
    assert held.apply(Event(1, "purge", subject, None)) is None
    assert held.apply(Event(2, "revoke.session", b"x", None)) is None
    assert len(held) == 0 and held.of(SEGMENT, 0, 0) == ""


FILM = {SEGMENT, SEGMENT + ";br", f"/v/film/{V}/4.m4s", f"/v/film/{V}+{A}/3.ts", "/v/film/main.mpd"}
MEANT = [
    (json.dumps({"url": SEGMENT}), {SEGMENT, SEGMENT + ";br"}),
    ('{"prefix": "/v/film/"}', FILM),
    ('{"asset": "film"}', FILM),
    ('{"tag": "asset:film"}', FILM),
    ('{"tag": "season-1"}', FILM),
    ('{"tag": "kind:mpd"}', {"/v/film/main.mpd", "/v/film2/main.mpd"}),
    (json.dumps({"tag": f"rendition:{A}"}), {f"/v/film/{V}+{A}/3.ts"}),
    ('{"prefix": "/v/"}', None),
]
KEYS = (
    SEGMENT, SEGMENT + ";br", f"/v/film/{V}/4.m4s", f"/v/film/{V}+{A}/3.ts", "/v/film/main.mpd", "/v/film2/main.mpd",
    "/v/other/main.m3u8",
)  # fmt: skip


@pytest.mark.parametrize(("text", "meant"), MEANT)
def test_who_is_meant(held: Purges, text: str, meant: set[str] | None) -> None:
    """The same by the list of keys in memory and by what is asked of a mark."""
    purge = held.apply(event(7, text))
    assert purge is not None
    means = matcher(purge, held.tags)
    assert {key for key in KEYS if means(key)} == (set(KEYS) if meant is None else meant)
    assert {key for key in KEYS if held.of(key, 6, 2**40) == "hard"} == (set(KEYS) if meant is None else meant)
    assert not any(held.of(key, 7, 2**40) for key in KEYS)


def test_assets_whose_files_are_looked_at_anew() -> None:
    def told(**what: str) -> list[str]:
        return assets_of(asked(json.dumps(what), 0), ["film", "film2", "other"], lambda asset: TAGS.get(asset, ()))

    assert told(asset="film") == told(tag="asset:film") == told(tag="season-1") == ["film"]
    assert told(prefix="/v/fil") == ["film", "film2"] and told(prefix="/v/film/") == ["film"]
    assert told(url="/v/film/main.mpd") == ["film"]
    assert told(url=SEGMENT) == told(prefix=f"/v/film/{V}/") == told(tag="kind:segment") == []


# --- before and after


def test_a_leap_back_uncaches_nothing(held: Purges, clock: Clock) -> None:
    """What was begun after a purge is newer than that, though its time is older; what comes from a lost feed's future is not."""
    held.apply(event(41, '{"asset": "film"}'))
    clock.wall -= 600
    assert held.of(SEGMENT, 41, int(clock.wall)) == ""
    assert held.of(SEGMENT, 40, int(clock.wall) + 10_000) == "hard"
    assert held.of(SEGMENT, 42, int(clock.wall)) == "hard"


def test_an_object_is_older_by_number_whatever_the_clock_says(held: Purges, clock: Clock) -> None:
    held.apply(event(41, '{"asset": "film"}'))
    assert held.number == 41
    clock.wall += 3600
    assert held.of(SEGMENT, 40, int(clock.wall)) == "hard"
    assert held.of(SEGMENT, 41, int(clock.wall)) == ""


def test_an_object_is_older_by_time_where_the_feed_began_anew(held: Purges, clock: Clock) -> None:
    held.apply(event(2, '{"asset": "film"}'))
    assert held.of(SEGMENT, 900, int(clock.wall) - 1) == "hard" and held.of(SEGMENT, 900, int(clock.wall)) == ""


def test_the_senders_clock_does_not_matter_here(held: Purges, clock: Clock) -> None:
    """A node hears of a purge an hour late, from one whose clock is a year behind, or ahead."""
    for at in (clock.wall - 31_000_000, clock.wall + 31_000_000):
        fresh = Purges(1000, clock=lambda: clock.wall, counter=lambda: clock.counter)
        fresh.apply(event(5, '{"asset": "film"}', at=at))
        assert fresh.of(SEGMENT, 4, int(clock.wall)) == "hard"
        assert fresh.of(SEGMENT, 5, int(clock.wall) + 1) == ""
        assert fresh.after(SEGMENT, int(clock.wall))


def test_other_nodes_clocks_may_be_apart(held: Purges, clock: Clock) -> None:
    held.apply(event(5, '{"asset": "film", "soft": true}', at=clock.wall))
    assert held.after(SEGMENT, int(clock.wall) + SLACK_S) and held.after(f"{SEGMENT}#abc", 0)
    assert not held.after(SEGMENT, int(clock.wall) + SLACK_S + 1) and not held.after("/v/other/main.mpd", 0)


def test_a_successor_knows_by_number(held: Purges, clock: Clock) -> None:
    old = event(5, '{"asset": "film"}', at=clock.wall - 1000)
    assert held.apply(old, live=False) is not None
    assert held.of(SEGMENT, 4, int(clock.wall)) == "hard" and held.of(SEGMENT, 5, int(clock.wall) - 500) == ""
    assert held.since(SEGMENT, born=clock.counter) == ""


def test_hard_wins_over_soft(held: Purges) -> None:
    held.apply(event(1, '{"asset": "film", "soft": true}'))
    assert held.of(SEGMENT, 0, 2**40) == "soft"
    held.apply(event(2, '{"tag": "kind:segment"}'))
    assert (
        held.of(SEGMENT, 0, 2**40) == "hard"
        and held.of(SEGMENT, 1, 2**40) == "hard"
        and held.of(SEGMENT, 2, 2**40) == ""
    )


def test_what_is_read_again_is_no_new_purge(held: Purges, clock: Clock) -> None:
    """The store began anew, or the clock was set back: every entry comes again, perhaps under another number."""
    first, second = event(70, '{"asset": "film"}'), event(71, '{"asset": "film"}')
    assert held.apply(first) is not None and held.apply(second) is not None
    clock.counter += 1
    assert held.apply(replace(first, id=1)) is None and held.apply(replace(second, id=2)) is None
    assert len(held) == 1 and held.since(SEGMENT, born=clock.counter - 0.5) == ""
    assert held.of(SEGMENT, 1, 2**40) == "hard" and held.of(SEGMENT, 2, 2**40) == ""


def test_it_ends(held: Purges, clock: Clock) -> None:
    held.apply(event(1, '{"asset": "film"}', until=int(clock.wall) + 100))
    held.apply(event(2, '{"prefix": "/v/o"}'))
    clock.wall += 101
    held.forget()
    assert len(held) == 1 and held.of(SEGMENT, 0, 2**40) == "" and held.of("/v/other/main.mpd", 0, 2**40) == "hard"


def test_too_many_become_one_of_everything(clock: Clock) -> None:
    held = Purges(16, clock=lambda: clock.wall, counter=lambda: clock.counter)
    for number in range(1, 101):
        held.apply(event(number, json.dumps({"asset": f"a{number}", "soft": number % 2 == 0})))
        assert len(held) <= 17
    for number in range(1, 101):
        key = f"/v/a{number}/main.mpd"
        assert held.of(key, number - 1, 2**40) != "" and held.of(key, 100, 2**40) == "", number
    assert held.of("/v/a100/main.mpd", 99, 2**40) == "soft"


def test_no_purges_cost_next_to_nothing(held: Purges) -> None:
    began = time.perf_counter()
    for _ in range(10_000):
        held.after(SEGMENT, 0)
    assert (time.perf_counter() - began) / 10_000 < 20e-6


def test_keys_are_listed_by_what_they_begin_with() -> None:
    cache: Cache[int] = Cache(1 << 20)
    for number in range(300):
        cache.put(f"/v/a{number % 3}/{number}".encode(), number, 100)
    assert sorted(cache.keys(b"/v/a1/")) == sorted(f"/v/a1/{number}".encode() for number in range(1, 300, 3))
    assert len(cache.keys(b"/v/")) == len(cache.keys()) == 300 and cache.keys(b"/v/a1/1" * 9) == [] == cache.keys(b"x")


# --- the tiers


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    pool = Pool("work", 2, 1000, Telemetry())
    yield pool
    pool.close()


Made = Callable[[], Awaitable[DiskTier]]


@pytest.fixture
async def disk_at(pool: Pool, tmp_path: Path) -> AsyncIterator[Made]:
    """Opens the disk tier of one folder, as each worker and each start does."""
    opened: list[DiskTier] = []

    async def make() -> DiskTier:
        disk = DiskTier(tmp_path, 1 << 26, pool, Telemetry())
        disk.purges = Purges()
        await disk.start()
        opened.append(disk)
        return disk

    yield make
    for disk in opened:
        disk.close()


def entry(body: bytes = b"body" * 1000) -> Entry:
    return Entry("video/mp4", f"{V}/3.m4s", IMMUTABLE, body)


async def test_the_disk_forgets_even_over_a_restart(disk_at: Made, pool: Pool) -> None:
    disk = await disk_at()
    purged = event(1, '{"asset": "film"}')
    assert await disk.on_miss(SEGMENT, entry(), TERMS) and await disk.on_miss("/v/other/x", entry(), TERMS)
    disk.purges.apply(purged)
    assert await disk.lookup(SEGMENT) is None and await disk.lookup("/v/other/x") is not None
    assert await disk.on_miss(SEGMENT, entry(b"new"), TERMS)
    disk.close()
    again = await disk_at()
    again.purges.apply(purged, live=False)
    found = await again.lookup(SEGMENT)
    assert found is not None and not found.stale and found.size == 3


async def test_a_restart_brings_nothing_back(disk_at: Made) -> None:
    """Killed before anything was thrown out: the store knows, and that is enough."""
    disk = await disk_at()
    assert await disk.on_miss(SEGMENT, entry(), TERMS)
    disk.close()
    again = await disk_at()
    again.purges.apply(event(1, '{"tag": "kind:segment"}'), live=False)
    assert await again.lookup(SEGMENT) is None


async def test_a_soft_purge_leaves_it_on_the_disk_as_stale(disk_at: Made, pool: Pool) -> None:
    disk = await disk_at()
    await disk.on_miss(SEGMENT, entry(b"old"), TERMS)
    disk.purges.apply(event(1, '{"asset": "film", "soft": true}'))
    found = await disk.lookup(SEGMENT)
    assert found is not None and found.stale
    assert await pool.run(disk.expel, await pool.run(disk.files)) == 0
    # What replaces it does so when it is whole, and not before.
    claim = await pool.run(disk.claim, SEGMENT, 3)
    assert isinstance(claim, Claim) and claim.leads
    claim.write(b"ne", 0)
    found = await disk.lookup(SEGMENT)
    assert found is not None and found.stale and await pool.run(disk.get, SEGMENT) == b"old"
    await pool.run(claim.give_up)
    assert await disk.on_miss(SEGMENT, entry(b"new"), TERMS)
    found = await disk.lookup(SEGMENT)
    assert found is not None and not found.stale and await pool.run(disk.get, SEGMENT) == b"new"


@pytest.mark.parametrize("soft", [False, True])
async def test_what_was_begun_before_a_purge_is_never_published(disk_at: Made, pool: Pool, soft: bool) -> None:
    disk = await disk_at()
    before = entry(b"old")
    claim = await pool.run(disk.claim, SEGMENT, 3)
    assert isinstance(claim, Claim)
    claim.write(b"old", 0)
    disk.purges.apply(event(1, json.dumps({"asset": "film", "soft": soft})))
    assert not await pool.run(disk.commit, claim, SEGMENT, before, 0)
    # Nor does it stand in the way of what comes after.
    await pool.run(disk.abandon, [SEGMENT])
    assert await disk.on_miss(SEGMENT, entry(b"new"), TERMS) and await pool.run(disk.get, SEGMENT) == b"new"


async def test_a_claim_that_was_given_up_publishes_nothing(disk_at: Made, pool: Pool) -> None:
    """Begun after the purge, ended by it nevertheless: the disk is not taken for one that lost its folder."""
    disk = await disk_at()
    disk.purges.apply(event(1, '{"asset": "film"}'))
    claim = await pool.run(disk.claim, SEGMENT, 3)
    assert isinstance(claim, Claim)
    await pool.run(disk.abandon, [SEGMENT])
    claim.write(b"new", 0)
    assert not await pool.run(disk.commit, claim, SEGMENT, entry(b"new"), 0)
    assert disk.writable and await disk.on_miss(SEGMENT, entry(b"new"), TERMS)


async def test_what_another_worker_began_before_is_not_followed(disk_at: Made, pool: Pool) -> None:
    """The other one has yet to hear of the purge."""
    ours, theirs = await disk_at(), await disk_at()
    claim = await pool.run(theirs.claim, SEGMENT, 3)
    assert isinstance(claim, Claim) and claim.leads
    following = await pool.run(ours.claim, SEGMENT, 3)
    assert isinstance(following, Claim) and not following.leads
    ours.purges.apply(event(1, '{"asset": "film"}'))
    assert await pool.run(ours.claim, SEGMENT, 3) is None
    claim.write(b"old", 0)
    assert await pool.run(theirs.commit, claim, SEGMENT, entry(b"old"), 0)
    assert await ours.lookup(SEGMENT) is None


class Slow:
    """A body that is read when it may be."""

    kind, whole, size = "segment", False, 4

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.begun, self.go = threading.Event(), threading.Event()

    def read(self, start: int, length: int) -> bytes:
        self.begun.set()
        assert self.go.wait(10)
        return self.data[start : start + length]


async def test_a_fill_under_way_is_ended_for_who_comes_later(disk_at: Made, pool: Pool) -> None:
    disk = await disk_at()
    fills = Fills(disk, pool, Negatives(1.0), Telemetry())
    await fills.start()
    old, new = Slow(b"old!"), Slow(b"new!")
    first = asyncio.ensure_future(fills.join(SEGMENT, replace(entry(), body=old), 10))
    assert await asyncio.to_thread(old.begun.wait, 10)
    late = replace(entry(), body=Slow(b"late"))
    purge = disk.purges.apply(event(1, '{"asset": "film"}'))
    assert purge is not None
    keys = fills.detach(matcher(purge, disk.purges.tags))
    assert keys == [SEGMENT]
    await pool.run(disk.abandon, keys)
    second = asyncio.ensure_future(fills.join(SEGMENT, replace(entry(), body=new), 10))
    new.go.set()
    found = await second
    assert found is not None and await pool.run(found[0].body.read, 0, 4) == b"new!"  # type: ignore[union-attr]
    # Who was there before gets what it began, and nobody else does.
    old.go.set()
    begun = await first
    assert begun is not None and await pool.run(begun[0].body.read, 0, 4) == b"old!"  # type: ignore[union-attr]
    assert await pool.run(disk.get, SEGMENT) == b"new!"
    assert disk.purges.since(SEGMENT, late.born) == "hard"
    await fills.close()


async def test_the_walk_throws_out_what_was_purged(disk_at: Made, pool: Pool) -> None:
    disk = await disk_at()
    for number in range(20):
        await disk.on_miss(f"/v/film/{V}/{number}.m4s", entry(), TERMS)
        await disk.on_miss(f"/v/other/{V}/{number}.m4s", entry(), TERMS)
    disk.purges.apply(event(1, '{"asset": "film"}'))
    assert await pool.run(disk.expel, await pool.run(disk.files)) == 20
    assert len(await pool.run(disk.files)) == 20 and await disk.lookup(f"/v/other/{V}/7.m4s") is not None


async def test_memory_keeps_nothing_that_was_made_before(pool: Pool) -> None:
    edge = EdgeSettings()
    memory = MemoryTier(edge, Cors(edge), pool)
    memory.purges = Purges()
    late, lately = entry(), entry()
    memory.purges.apply(event(1, '{"asset": "film"}'))
    assert not memory.put(SEGMENT, late, TERMS) and memory.put("/v/other/x.m4s", late, TERMS)
    assert memory.put(SEGMENT, entry(), TERMS)
    memory.purges.apply(event(2, '{"prefix": "/v/other/", "soft": true}'))
    assert memory.put("/v/other/y.m4s", lately, TERMS)
    found = memory.get("/v/other/y.m4s")
    assert found is not None and found.stale


def test_the_fields_of_a_purge_stay_what_nodes_of_other_versions_know() -> None:
    told = json.loads(Purge("asset", "film", True, 12, "ab").encode())
    assert told == {"asset": "film", "soft": True, "at": 12, "name": "ab"}
    assert purges.decode(json.dumps(told).encode()).kind == "asset"
