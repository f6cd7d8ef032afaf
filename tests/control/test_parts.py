"""Parts of the auth role on their own: what happens between two of their steps, or when one of them fails."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streamgate.access.sessions import Session
from streamgate.control.auth.activity import NodeActivity
from streamgate.control.auth.keys import SiteKeys
from streamgate.control.auth.leases import Leases
from streamgate.control.auth.ledger import Ledger, session_key
from streamgate.control.auth.places import Places
from streamgate.control.auth.requests import Origin
from streamgate.control.auth.revoked import Revoked
from streamgate.control.auth.service import Service
from streamgate.control.auth.site_activity import SiteActivity
from streamgate.core.settings import AuthSettings, GeoipSettings, ServerSettings, Settings, TokenSettings
from streamgate.errors import StreamGateError
from streamgate.storage import keys
from streamgate.storage.kv.events import EventType
from streamgate.storage.kv.rows import ANY, Write
from streamgate.storage.kv.sqlite import SqliteStore

SESSION = Session(
    b"s" * 16, b"g" * 16, 1, "film", "ada", 0, int(time.time()) + 1000, "header", ("ticket",), max_streams=1
)


class Rows:
    """Rows in memory; ``before`` is called before each write."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}
        self.before: Any = lambda: None

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        return [self.rows.get(name) for name in names]

    async def write(self, writes: Sequence[Write]) -> list[bool]:
        self.before()
        done = [each.expected is ANY or self.rows.get(each.key) == each.expected for each in writes]
        self.rows |= {each.key: each.value for each, good in zip(writes, done, strict=True) if good}
        return done


class Events:
    async def append(self, type: EventType, subject: bytes, until: int | None) -> int:
        return 1


@pytest.fixture
def rows() -> Rows:
    made = Rows()
    made.rows[session_key(SESSION.id)] = SESSION.encode()
    return made


def ledger(rows: Rows) -> Ledger:
    return Ledger(rows, Events(), Revoked(time.time), shared=False, limit=100)


async def test_two_renewals_at_once(rows: Rows) -> None:
    """Both bind the session; it has not ended because of that."""
    known = ledger(rows)
    four, six = await asyncio.gather(known.rebind(SESSION, "203.0.113.0/24"), known.rebind(SESSION, "2001:db8:1::/48"))
    assert four.networks == ("203.0.113.0/24",)
    assert set(six.networks) == {"203.0.113.0/24", "2001:db8:1::/48"}
    await known.end_session(six)
    with pytest.raises(StreamGateError, match="session_ended"):
        await known.rebind(six, "198.51.100.0/24")


async def test_a_revoked_key_stays_so_after_a_restart(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    store = await SqliteStore.open(tmp_path / "state.sqlite")
    await store.append("revoke.key", b"some kid", None)
    await store.close()
    settings = Settings(server=ServerSettings(data=str(tmp_path)))
    async with Service.open(settings, str(tmp_path / "assets"), tmp_path / "state.sqlite") as service:
        assert service.keys.verifier.revoked == 1


async def test_a_removed_key_counts_no_more_though_the_ring_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(server=ServerSettings(data=str(tmp_path)), tokens=TokenSettings(revalidate=0))
    known = await SiteKeys.open(settings)
    workshop = keys.workshop(settings)
    workshop.sign(workshop.new())
    await known.look()
    assert len(known.readers()) == 2
    (tmp_path / "keys" / "local.1.toml").unlink()

    def fail(_: Settings) -> Any:
        raise StreamGateError("config_invalid", "for a moment")

    with monkeypatch.context() as patch:
        patch.setattr("streamgate.storage.keys.ring", fail)
        before = known.verifier.generation
        with pytest.raises(StreamGateError):
            await known.look()
        assert known.verifier.generation > before and [key.kid for key in known._known] == [b"local.2"]
        with pytest.raises(StreamGateError):
            await known.look()
    after = known.verifier.generation
    await known.look()
    assert known.verifier.generation > after, "the ring is read as soon as it can be"


async def test_a_stream_that_one_holder_refuses_counts_for_none(rows: Rows) -> None:
    activity = SiteActivity(rows, AuthSettings())
    other = replace(SESSION, id=b"o" * 16, entitlements=())  # has the account's one stream
    assert await activity.ask([(other, "n")]) == ([""], [])
    assert await activity.ask([(SESSION, "n")]) == (["too_many_streams"], [])
    assert SESSION.id.hex() not in str({name: row for name, row in rows.rows.items() if name.startswith("streams/")})


async def test_only_what_was_stored_is_ended(rows: Rows) -> None:
    """Who is first in a row may have changed before it is written."""
    activity = SiteActivity(rows, AuthSettings())
    old, mine = (replace(SESSION, id=id, entitlements=(), when_full="end_oldest") for id in (b"o" * 16, b"m" * 16))
    await activity.ask([(old, "n")])

    def leave() -> None:
        rows.before = lambda: None
        rows.rows["streams/ada"] = b"{}"

    rows.before = leave
    # Its networks are not counted, so the first write is the one of the streams.
    assert await activity.ask([(mine, "n")]) == ([""], [])


async def test_many_of_one_holder_at_once() -> None:
    """In one batch, as in one after another: those that come first are in."""
    sessions = [replace(SESSION, id=bytes([n]) * 16, max_streams=2) for n in range(4)]
    for activity in (SiteActivity(Rows(), AuthSettings()), NodeActivity(AuthSettings())):
        codes, ended = await activity.ask([(each, "n") for each in sessions])
        assert (codes, ended) == (["", "", "too_many_streams", "too_many_streams"], [])
    newer = [replace(each, when_full="end_oldest") for each in sessions]
    told = await SiteActivity(Rows(), AuthSettings()).ask([(each, "n") for each in newer])
    assert told == ([""] * 4, [sessions[0].id, sessions[1].id])


async def test_networks_of_one_session_in_one_batch() -> None:
    shared = replace(SESSION, max_networks=2, max_streams=0)
    for activity in (SiteActivity(Rows(), AuthSettings()), NodeActivity(AuthSettings())):
        codes, _ = await activity.ask([(shared, f"10.0.{n}.0/24") for n in range(3)])
        assert codes == ["", "", "session_shared"]


async def test_who_was_counted_with_one_holder_is_not_when_another_refuses(rows: Rows) -> None:
    """Somebody else takes the account's place just when both rows are written: the ticket's row is given back."""
    activity = SiteActivity(rows, AuthSettings())

    def taken() -> None:
        rows.before = lambda: None
        rows.rows["streams/ada"] = json.dumps({"00" * 16: (time.time(), time.time())}).encode()

    rows.before = taken
    assert await activity.ask([(SESSION, "n")]) == (["too_many_streams"], [])
    assert json.loads(rows.rows["streams/ticket"]) == {}


class Slow(NodeActivity):
    """``end`` waits."""

    def __init__(self) -> None:
        super().__init__(AuthSettings())
        self.go, self.ends = asyncio.Event(), 0

    async def end(self, session: Session) -> None:
        self.ends += 1
        await self.go.wait()
        await super().end(session)


async def test_nobody_waits_for_streams_that_have_ended(rows: Rows) -> None:
    rows.rows[session_key(SESSION.id)] = SESSION.ended().encode()
    activity = Slow()
    leases = Leases(ledger(rows), Revoked(time.time), activity, await Places.open(GeoipSettings()), 60.0)
    pairs = [(SESSION.id, f"10.0.{n}.0/24", None) for n in range(3)]
    for _ in range(2):
        granted, refused = await leases.decide(pairs)
        assert not granted and set(refused.values()) == {"session_ended"}
        await asyncio.sleep(0)
    assert activity.ends == 1
    await leases.close()


@pytest.mark.parametrize(
    ("client", "host", "plain"),
    [
        ("127.0.0.1", "localhost:8080", True),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("203.0.113.7", "localhost:8080", False),
        ("127.0.0.1", "video.example", False),
        ("", "localhost", False),
    ],
)
def test_plain_is_what_stays_on_this_machine(client: str, host: str, plain: bool) -> None:
    assert Origin(client, "http", host).plain == plain
    assert not Origin(client, "https", host).plain
