"""What is revoked ends, in all kinds, and stays ended when nothing speaks of it any more."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from dataclasses import replace

import pytest

from streamgate.access.sessions import Session, by_time
from streamgate.control.auth.endings import Endings
from streamgate.control.auth.ledger import Ledger, session_key
from streamgate.control.auth.revoked import LASTING, LASTS_S, Revoked
from streamgate.core.cells import HEAD, Cells, slot_of
from streamgate.errors import StreamGateError
from streamgate.native import cat
from streamgate.storage.kv.events import Event
from tests.control.auth_process import AuthProcess, Viewer
from tests.control.conftest import PASSWORD, MakeAuth
from tests.control.test_parts import Events, Rows
from tests.edge.nodes import until

SESSION = Session(
    b"s" * 16, b"g" * 16, 1, "film", "ada", 1000, 5000, "path", ("ticket",), max_streams=0, max_networks=0
)


def sign_in(auth: AuthProcess, name: str) -> Viewer:
    login = auth.request("POST", "/api/v1/auth/login", {"account": name, "password": PASSWORD})
    return Viewer(access=login.json["access_token"])


def started(auth: AuthProcess, asset: str, viewer: Viewer) -> str:
    return str(auth.play(asset, viewer).json["session"])


def test_by_the_feed(make_auth: MakeAuth) -> None:
    """Events of all kinds end what they name, and nothing else."""
    auth, later = make_auth(), int(time.time()) + 1000
    ada, bob = sign_in(auth, "ada"), sign_in(auth, "bob")
    other = started(auth, "film", Viewer())
    for kind, viewer in (("session", bob), ("grant", bob), ("account", bob), ("entitlement", ada)):
        session = started(auth, "members", viewer)
        granted, _ = auth.ask(session, "members")
        subjects = {
            "session": bytes.fromhex(session),
            "grant": bytes.fromhex(granted["grant"]),
            "account": granted["account"].encode(),
            "entitlement": granted["entitlements"][0].encode(),
        }
        auth.apply(f"revoke.{kind}", subjects[kind], int(time.time()) - 60)
        assert auth.extend(session) == "", kind
        auth.apply(f"revoke.{kind}", subjects[kind], later)
        assert auth.extend(session) == "session_ended", kind
        assert auth.ask(session, "members") == (None, "session_ended")
        assert auth.extend(other) == ""
        again = auth.play("members", viewer)
        expected = (403, "playback_denied") if kind in ("account", "entitlement") else (201, None)
        assert (again.status, again.json.get("code")) == expected


def test_a_revoked_asset_and_a_revoked_key(make_auth: MakeAuth) -> None:
    auth = make_auth()
    answer = auth.play("film").json
    auth.apply("revoke.asset", b"film")
    assert auth.extend(answer["session"]) == "session_ended"
    assert auth.play("film").json["code"] == "playback_denied"
    told = auth.play("open").json
    kid = next(path.stem for path in sorted((auth.data / "keys").glob("*.toml")))
    assert auth.request("POST", "/api/v1/playback/renew", {"token": told["token"]}).status == 200
    real = cat.decode(told["token"])[2][4]
    assert isinstance(real, bytes) and kid
    auth.apply("revoke.key", real)
    refused = auth.request("POST", "/api/v1/playback/renew", {"token": told["token"]})
    assert (refused.status, refused.json["code"]) == (401, "token_revoked")


def test_it_stays_ended(make_auth: MakeAuth) -> None:
    """The event was for a second, and is in no store: what had begun before has ended, also for another process."""
    auth = make_auth()
    revoked, of_grant, asset, other = (auth.play(name).json for name in ("film", "film", "open", "single"))
    soon = int(time.time()) + 2
    auth.apply("revoke.session", bytes.fromhex(revoked["session"]), soon)
    auth.apply("revoke.grant", bytes.fromhex(of_grant["grant"]), soon)
    auth.apply("revoke.asset", b"open", soon)
    assert auth.play("open").json["code"] == "playback_denied"
    until(lambda: auth.play("open").status == 201, "the asset may be played again")
    until(lambda: b"open".hex() in auth.row("revoked"), "it is written down")
    ended = (revoked, of_grant, asset)
    assert [auth.extend(each["session"]) for each in ended] == ["session_ended"] * 3
    assert auth.extend(auth.play("open").json["session"]) == auth.extend(other["session"]) == ""
    assert '"ended"' in auth.row(session_key(bytes.fromhex(revoked["session"])))
    assert '"ended"' in auth.row(f"grant/{by_time(bytes.fromhex(of_grant['grant']))}")
    auth.kill()
    auth.start()
    assert [auth.extend(each["session"]) for each in ended] == ["session_ended"] * 3
    assert auth.extend(auth.play("open").json["session"]) == auth.extend(other["session"]) == ""


def test_who_left_is_told_of_no_longer_than_a_lease_lives(make_auth: MakeAuth) -> None:
    """Its row says for good that it has ended: many who come and go do not fill the list."""
    auth = make_auth(leases={"duration": 5, "auth_outage": 7})
    told = [auth.play("film").json for _ in range(3)]
    for each in told:
        assert auth.request("DELETE", "/api/v1/playback/session", {"token": each["token"]}).status == 204
    assert [subject.hex() for _, subject, _ in auth.events()] == [each["session"] for each in told]
    assert all(end == pytest.approx(time.time() + 5 + 7 + 30, abs=4) for _, _, end in auth.events())
    auth.kill()
    with closing(sqlite3.connect(auth.store)) as db:
        db.execute("DELETE FROM events")
        db.commit()
    auth.start()
    assert {auth.extend(each["session"]) for each in told} == {"session_ended"}


def test_where_tokens_count_without_a_lease_it_is_told_until_the_cap(make_auth: MakeAuth) -> None:
    auth = make_auth(tokens={"without_session": True})
    told = auth.play("film").json
    assert auth.request("DELETE", "/api/v1/playback/session", {"token": told["token"]}).status == 204
    assert [end for _, _, end in auth.events()] == [told["cap"] + 30]


def test_of_an_account_what_began_before_the_end() -> None:
    now = [1500.0]
    revoked = Revoked(lambda: now[0])
    for kind, subject in zip(LASTING, (b"film", b"ada", b"ticket"), strict=True):
        assert revoked.add(kind, subject, 2000) and not revoked.add(kind, subject, 1900)
        assert revoked.ends(SESSION) and revoked.bars("ada", "film", ("ticket",))
        now[0] = 2000.0
        assert revoked.ends(SESSION) and not revoked.bars("ada", "film", ("ticket",))
        revoked.forget()
        assert len(revoked) == 1
        assert revoked.ends(SESSION) and list(revoked.lasting()) == [(kind, subject, 2000)]
        now[0] = 2000.0 + LASTS_S
        revoked.forget()
        assert len(revoked) == 0 and not revoked.ends(SESSION)
        now[0] = 1500.0
    revoked.add("revoke.asset", b"film", None)
    assert not list(revoked.lasting()) and revoked.bars("", "film", ())


async def test_two_nodes_write_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each knows what the other has written, whatever it could not write itself at first."""
    monkeypatch.setattr("streamgate.control.auth.endings._AGAIN_S", 0.01)
    rows, now = Rows(), time.time()
    made = []
    for subject in (b"one", b"two"):
        revoked = Revoked(time.time)
        ledger = Ledger(rows, Events(), revoked, shared=True, limit=10)
        endings = await Endings.open(rows, ledger, revoked)
        made.append((revoked, endings))
        event = Event(1, "revoke.asset", subject, int(now) + 100)
        assert revoked.apply(event) and not revoked.apply(event)
        failed: list[int] = []

        def fail(failed: list[int] = failed) -> None:
            if not failed:
                failed.append(1)
                raise StreamGateError("store_unavailable")

        rows.before = fail
        endings.note(event)
        while subject.hex() not in rows.rows.get("revoked", b"").decode():
            await asyncio.sleep(0.01)
        assert failed
    # The second found the first's; whoever comes later finds both.
    assert made[1][0].holds("revoke.asset", b"one")
    third = Revoked(time.time)
    rows.before = lambda: None
    last = await Endings.open(rows, Ledger(rows, Events(), third, shared=True, limit=10), third)
    assert third.holds("revoke.asset", b"one") and third.holds("revoke.asset", b"two")
    for endings in (*(each for _, each in made), last):
        await endings.close()


async def test_a_row_that_a_failover_has_lost() -> None:
    """Before the event is no more its row is looked at again, whoever wrote it."""
    rows, revoked, now = Rows(), Revoked(time.time), int(time.time())
    rows.rows[session_key(SESSION.id)] = replace(SESSION, cap=now + 1000).encode()
    endings = await Endings.open(rows, Ledger(rows, Events(), revoked, shared=True, limit=10), revoked)
    endings.note(Event(1, "revoke.session", SESSION.id, now + 90), new=False)
    endings.look_again()
    await asyncio.sleep(0.01)
    assert b'"ended"' not in rows.rows[session_key(SESSION.id)]
    endings.note(Event(1, "revoke.session", SESSION.id, now + 10), new=False)
    endings.look_again()
    while b'"ended"' not in rows.rows[session_key(SESSION.id)]:
        await asyncio.sleep(0.01)
    await endings.close()


def test_numbers(make_auth: MakeAuth) -> None:
    """At its socket, and in the memory that the node's processes share."""
    auth = make_auth()
    session = auth.play("film").json["session"]
    assert auth.ask(session)[0] and auth.ask("00" * 16)[1] == "session_unknown"
    told = auth.request("GET", "/metrics").body.decode()
    for line in (
        'streamgate_auth_requests_total{route="/api/v1/playback/{asset}",status="201"} 1.0',
        "streamgate_auth_leases_total 1.0",
        'streamgate_auth_refusals_total{code="session_unknown"} 1.0',
        "streamgate_auth_sessions 1.0",
        'streamgate_auth_seconds_count{route="/leases"} 2.0',
    ):
        assert line in told, told
    cells = {key: list(values) for key, values in Cells(slot_of(auth.page, 0)[HEAD:]).read()}
    assert [1.0] in [values for key, values in cells.items() if "auth_leases" in key]
    assert session not in told and "203.0.113" not in told
