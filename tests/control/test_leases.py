"""Leases: who gets one, who keeps it, and what ends it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

import pytest

from tests.control.auth_process import AuthProcess, Viewer
from tests.control.conftest import MakeAuth

HOME, ROAD = "203.0.113.0/24", "198.51.100.0/24"
SIX = "2001:db8:1::/48"


def session_of(auth: AuthProcess, asset: str = "film", viewer: Viewer | None = None) -> str:
    answer = auth.play(asset, viewer)
    assert answer.status == 201, answer.body
    return str(answer.json["session"])


def test_sessions_that_there_are_not(auth: AuthProcess) -> None:
    assert auth.ask(secrets.token_hex(16)) == (None, "session_unknown")
    assert auth.extend(secrets.token_hex(16)) == "session_unknown"


def test_another_asset(auth: AuthProcess) -> None:
    assert auth.ask(session_of(auth), "open") == (None, "session_asset")


def test_many_at_once(auth: AuthProcess) -> None:
    sessions = [session_of(auth) for _ in range(4)]
    asks = [[each, "", "film", HOME, "path"] for each in sessions[:2]]
    extends = [[each, ROAD] for each in sessions[2:]]
    told = auth.request("POST", "/leases", {"node": "n", "ask": asks, "extend": extends}).json
    assert set(told["granted"]) == {f"{each}|{HOME}" for each in sessions[:2]} | {
        f"{each}|{ROAD}" for each in sessions[2:]
    }
    assert told["refused"] == {}


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"ask": [["00"]]}', b'{"ask": [["zz", "", "a", "n"]]}', b'{"extend": [[1, 2]]}', b'{"ask": 3}'],
)
def test_what_is_no_question(auth: AuthProcess, body: bytes) -> None:
    assert auth.request("POST", "/leases", body).json["code"] == "request_malformed"


def test_too_many_at_once(auth: AuthProcess) -> None:
    pairs = [[secrets.token_hex(16), HOME] for _ in range(1001)]
    assert auth.request("POST", "/leases", {"extend": pairs}).status == 400
    assert len(auth.request("POST", "/leases", {"extend": pairs[1:]}).json["refused"]) == 1000


def test_a_lease_ends_with_its_session(make_auth: MakeAuth) -> None:
    auth = make_auth(leases={"duration": 3600})
    made = auth.request("POST", "/sessions", {"asset": "closed", "lifetime": 2}).json
    granted, _ = auth.ask(made["session"], "closed")
    # exp and 30 s of grace, as the token's.
    assert 28 < granted["seconds"] <= 32 and granted["cap"] == made["cap"]


def test_the_operators_sessions(auth: AuthProcess) -> None:
    made = auth.request("POST", "/sessions", {"asset": "closed", "lifetime": 100, "subject": "x"})
    assert made.status == 201 and made.json["cap"] == pytest.approx(time.time() + 100, abs=3)
    granted, _ = auth.ask(made.json["session"], "closed")
    assert granted["account"] == "" and granted["entitlements"] == []
    for wrong in ({}, {"asset": "closed", "lifetime": 0}, {"asset": "closed", "lifetime": True}):
        assert auth.request("POST", "/sessions", wrong).json["code"] == "request_malformed"


def test_bound_to_a_network(auth: AuthProcess) -> None:
    """Wi-Fi to mobile in the middle of a film: the page renews, and it goes on."""
    told = auth.play("home", carriage="header").json
    assert auth.ask(told["session"], "home", HOME)[0]["networks"] == [HOME]
    assert auth.ask(told["session"], "home", ROAD) == (None, "session_network")
    renewed = auth.request("POST", "/api/v1/playback/renew", {"token": told["token"]}, Viewer("198.51.100.9"))
    assert renewed.status == 200
    assert auth.ask(told["session"], "home", ROAD)[0] is not None
    assert auth.extend(told["session"], HOME) == "session_network"
    # Dual stack: the page renews by IPv6 once, and both count.
    auth.request("POST", "/api/v1/playback/renew", {"token": told["token"]}, Viewer("2001:db8:1::5"))
    assert [auth.extend(told["session"], each) for each in (ROAD, SIX, HOME)] == ["", "", "session_network"]


def test_a_shared_link(auth: AuthProcess, make_auth: MakeAuth) -> None:
    """The third network within the window: nobody goes on with this session until it is quiet again."""
    auth = make_auth(auth={"networks_window": 1.0})
    told = auth.play("film", carriage="header").json
    session = told["session"]
    assert auth.ask(session, network=HOME)[0] and auth.ask(session, network=ROAD)[0]
    asked = time.monotonic()
    assert auth.ask(session, network=SIX) == (None, "session_shared")
    assert [auth.extend(session, each) for each in (HOME, ROAD)] == ["session_shared"] * 2
    assert auth.request("POST", "/api/v1/playback/renew", {"token": told["token"]}).json["code"] == "session_shared"
    # From the page one starts anew, and others are not concerned.
    assert auth.ask(session_of(auth), network=HOME)[0]
    while time.monotonic() < asked + 2.1:
        time.sleep(0.05)
    assert auth.extend(session, HOME) == ""


def test_a_link_on_ten_networks(auth: AuthProcess) -> None:
    session = session_of(auth)
    networks = [f"10.0.{n}.0/24" for n in range(10)]
    refused = [auth.ask(session, network=each)[1] for each in networks]
    assert refused == ["", ""] + ["session_shared"] * 8
    assert {auth.extend(session, each) for each in networks} == {"session_shared"}


def test_streams_at_once(auth: AuthProcess, sign_in: Callable[[str], Viewer]) -> None:
    """One entitlement, many viewers: three may play, and a fourth only when one has stopped."""
    eve = sign_in("eve")
    sessions = [session_of(auth, "few", eve) for _ in range(50)]
    told = [auth.ask(each, "few")[1] for each in sessions]
    assert told == [""] * 3 + ["too_many_streams"] * 47
    refused = auth.play("few", eve)
    assert (refused.status, refused.json["code"]) == (409, "too_many_streams")
    assert [auth.extend(each) for each in sessions[:4]] == ["", "", "", "too_many_streams"]
    token = auth.request("DELETE", "/api/v1/playback/session", {"token": _token(auth, sessions[0])})
    assert token.status == 204
    assert auth.ask(sessions[4], "few")[0] is not None
    # Another account plays on.
    assert auth.ask(session_of(auth, "members", sign_in("ada")), "members")[0]
    for each in sessions[1:5]:
        auth.request("DELETE", "/api/v1/playback/session", {"token": _token(auth, each)})


def _token(auth: AuthProcess, session: str) -> str:
    """A token of a session, made with the site's key."""
    from streamgate.access import tokens
    from streamgate.core.settings import ServerSettings, Settings
    from streamgate.storage import keys

    settings = Settings(server=ServerSettings(data=str(auth.data)))
    key = keys.signer(settings, keys.configured(settings))
    return tokens.mint(key, asset="few", session=bytes.fromhex(session), expires=int(time.time()) + 100)


def test_quiet_streams_do_not_count(make_auth: MakeAuth) -> None:
    auth = make_auth(auth={"streams_window": 1.0, "max_streams": 1})
    first = auth.play("film")
    viewer = Viewer(cookies=first.cookies)
    session = first.json["session"]
    second = session_of(auth, viewer=viewer)
    assert auth.ask(session)[0] is not None
    asked = time.monotonic()
    assert auth.ask(second) == (None, "too_many_streams")
    while time.monotonic() < asked + 1.1:
        time.sleep(0.05)
    assert auth.ask(second)[0] is not None
    assert auth.ask(session) == (None, "too_many_streams")


def test_the_oldest_makes_room(make_auth: MakeAuth) -> None:
    auth = make_auth()
    login = auth.request("POST", "/api/v1/auth/login", {"account": "ada", "password": "correct horse"})
    ada = Viewer(access=login.json["access_token"])
    sessions = [session_of(auth, "newest", ada) for _ in range(3)]
    for each in sessions:
        assert auth.ask(each, "newest")[0] is not None
    assert [auth.extend(each) for each in sessions] == ["session_ended", "", ""]


def test_grants_in_another_store(make_auth: MakeAuth) -> None:
    """Whatever is in memory, ``fresh`` looks at what is stored."""
    auth = make_auth()
    session = session_of(auth)
    assert auth.ask(session, fresh=True)[0] is not None
