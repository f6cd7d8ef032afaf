"""Who is counted together, what a session is bound to, and what one grant covers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamgate.access.sessions import Grant
from streamgate.control.auth.rates import Rates
from streamgate.core.settings import AuthSettings
from streamgate.errors import StreamGateError
from streamgate.native import cat
from tests import geoip_factory
from tests.control.auth_process import AuthProcess, Viewer
from tests.control.conftest import PASSWORD, MakeAuth, _make
from tests.edge.nodes import until

BROWSER = "__Host-streamgate-browser"
NETWORKS = {
    "203.0.113.0/24": geoip_factory.number(64500),
    "198.51.100.0/24": geoip_factory.number(64501),
    "192.0.2.0/24": geoip_factory.number(64500),
    "2001:db8:1::/48": geoip_factory.number(64500),
    "2001:db8:2::/48": geoip_factory.number(64502),
}
HOME, NEIGHBOUR, ROAD, SIX, TUNNEL = (
    *[f"{n}.0/24" for n in ("203.0.113", "192.0.2", "198.51.100")],
    *list(NETWORKS)[3:],
)


@pytest.fixture(scope="module")
def numbered(assets: Path, accounts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthProcess]:
    """One that knows whose networks are whose."""
    folder = tmp_path_factory.mktemp("numbered")
    path = geoip_factory.write(folder / "asn.mmdb", NETWORKS)
    made = _make(assets, accounts, folder / "data", {"geoip": {"asn": str(path), "interval": 0.1}})
    yield made
    made.close()


def renew(auth: AuthProcess, token: str, address: str) -> tuple[int, str]:
    answer = auth.request("POST", "/api/v1/playback/renew", {"token": token}, Viewer(address))
    return answer.status, answer.json.get("code", "")


def test_bound_to_a_system(numbered: AuthProcess) -> None:
    """All networks of the provider, of both families; Wi-Fi to mobile in the middle of a film goes on after a renewal."""
    told = numbered.play("provider", carriage="cookie").json
    session = told["session"]
    assert [numbered.ask(session, "provider", each)[1] for each in (HOME, NEIGHBOUR, SIX)] == ["", "", ""]
    strangers = (ROAD, TUNNEL, "192.88.99.0/24", "", "no network")
    assert [numbered.extend(session, each) for each in strangers] == ["session_network"] * 5
    assert renew(numbered, told["token"], "198.51.100.9") == (200, "")
    assert [numbered.extend(session, each) for each in (ROAD, HOME, SIX)] == ["", "session_network", "session_network"]
    # Two families by two providers: both count.
    assert renew(numbered, told["token"], "2001:db8:2::1") == (200, "")
    assert [numbered.extend(session, each) for each in (ROAD, TUNNEL, HOME)] == ["", "", "session_network"]


def test_a_system_that_is_not_known(numbered: AuthProcess) -> None:
    told = numbered.play("provider", carriage="header").json
    assert renew(numbered, told["token"], "192.88.99.1") == (503, "binding_unavailable")
    for stranger in (Viewer("192.88.99.1"), Viewer("")):
        refused = numbered.play("provider", stranger)
        assert (refused.status, refused.json["code"]) == (503, "binding_unavailable")


def test_a_database_that_is_replaced(numbered: AuthProcess) -> None:
    session = numbered.play("provider").json["session"]
    path = Path(numbered.settings["geoip"]["asn"])
    assert numbered.ask(session, "provider", HOME)[0]
    geoip_factory.write(path, NETWORKS | {HOME: geoip_factory.number(64999)})
    try:
        until(lambda: numbered.extend(session, HOME) == "session_network", "the new database is read")
        assert numbered.extend(session, NEIGHBOUR) == ""
    finally:
        geoip_factory.write(path, NETWORKS)
        until(lambda: numbered.extend(session, HOME) == "", "the old one is back")


def test_bound_to_a_system_without_a_database(auth: AuthProcess) -> None:
    """Nobody gets in, who is told so, and the log says why, once."""
    for _ in range(2):
        refused = auth.play("provider")
        assert (refused.status, refused.json["code"]) == (503, "binding_unavailable")
    until(lambda: auth.log.read_text().count("geoip.asn names no database") == 1, "the log says why")
    # Of a network that is not known nobody is let in where that is bound, either.
    assert auth.play("home", Viewer("")).json["code"] == "binding_unavailable"
    assert auth.play("film", Viewer("")).status == 201


@pytest.mark.parametrize(
    ("asset", "body", "name"), [("single", {}, "bob"), ("single-word", {"password": PASSWORD}, "ada")]
)
def test_without_an_entitlement_the_account_counts_or_else_the_browser(
    auth: AuthProcess, sign_in: Callable[[str], Viewer], asset: str, body: dict[str, Any], name: str
) -> None:
    first = auth.play(asset, **body)
    cookie = {BROWSER: first.cookies[BROWSER]}
    same, other = auth.play(asset, Viewer(cookies=cookie), **body), auth.play(asset, **body)
    codes = [auth.ask(each.json["session"], asset)[1] for each in (first, same, other)]
    assert codes == ["", "too_many_streams", ""]
    # Who signs in is one in all browsers, and another than the browser.
    viewer = sign_in(name)
    viewer.cookies = cookie
    accounts = [auth.play(asset, each, **body).json["session"] for each in (viewer, Viewer(access=viewer.access))]
    assert [auth.ask(each, asset)[1] for each in accounts] == ["", "too_many_streams"]
    refused = auth.play(asset, viewer, **body)
    assert (refused.status, refused.json["code"]) == (409, "too_many_streams")
    assert auth.ask(accounts[0], asset)[0]["entitlements"] == []


def test_one_grant_for_a_collection(auth: AuthProcess) -> None:
    """The word is said once; each asset has its own session and token, and they end together."""
    first = auth.play("season-1", password=PASSWORD)
    here = Viewer(cookies=first.cookies)
    grant = first.json["grant"]
    second = auth.play("season-2", here, grant=grant)
    assert second.status == 201
    told = [first.json, second.json]
    assert told[0]["grant"] == told[1]["grant"] and told[0]["session"] != told[1]["session"]
    # The second's own limit counts, too.
    assert told[1]["cap"] <= told[0]["cap"] - 14_000
    said = [cat.decode(each["token"])[3] for each in told]
    assert [each[cat.CLAIMS["catu"]] for each in said] == [{3: {1: f"/v/season-{n}/"}} for n in (1, 2)]
    assert auth.ask(told[0]["session"], "season-2") == (None, "session_asset")
    granted = [auth.ask(each["session"], f"season-{n}")[0] for n, each in enumerate(told, 1)]
    assert granted[0]["grant"] == granted[1]["grant"] == grant
    auth.apply("revoke.grant", bytes.fromhex(grant))
    assert [auth.extend(each["session"]) for each in told] == ["session_ended"] * 2
    assert auth.play("season-2", here, grant=grant).status == 403


def test_what_a_grant_does_not_cover(auth: AuthProcess) -> None:
    first = auth.play("season-1", password=PASSWORD)
    here, grant = Viewer(cookies=first.cookies), first.json["grant"]
    alone = auth.play("word", here, password=PASSWORD).json["grant"]
    for asset, viewer, given in (
        ("season-2", Viewer(), grant),  # another browser
        ("other-1", here, grant),  # another collection
        ("word", here, grant),
        ("word", here, alone),  # of no collection
        ("season-2", here, "00" * 16),
    ):
        refused = auth.play(asset, viewer, grant=given)
        assert (refused.status, refused.json["code"]) == (403, "password_wrong"), (asset, given)
    assert auth.play("season-2", here, grant="xy").json["code"] == "request_malformed"


def test_covering() -> None:
    grant = Grant(b"g" * 16, "ada", ("one",), "allow", 0, 100, collection="season").live(())
    assert grant.covers("ada", "allow", "season", 99)
    assert not grant.covers("ada", "allow", "season", 100) and not grant.ended().covers("ada", "allow", "season", 9)
    assert not grant.covers("ada", "password", "season", 9) and not grant.covers("", "allow", "season", 9)


def test_pages_that_may_show_it(auth: AuthProcess) -> None:
    """Those that the policy names, and the server's own."""
    for origin, status in (
        ("https://shop.example", 201),
        ("https://video.example", 201),
        ("https://evil.example", 403),
    ):
        answer = auth.request("POST", "/api/v1/playback/embedded", {}, Origin=origin)
        assert answer.status == status, origin
    assert answer.json["code"] == "embed_denied"
    assert auth.play("embedded").status == 201


@pytest.mark.parametrize(("table", "most"), [("starts", 30), ("renewals", 6), ("logins", 10)])
def test_rates_unless_somebody_says_otherwise(table: str, most: int) -> None:
    rate = getattr(Rates(AuthSettings()), table)
    for _ in range(most):
        rate.ask(b"x" * 16)
    with pytest.raises(StreamGateError, match="rate_limited"):
        rate.ask(b"x" * 16)
    rate.ask(b"y" * 16)


def test_limits_unless_somebody_says_otherwise() -> None:
    told = AuthSettings()
    assert (told.max_streams, told.streams_window, told.too_many_streams) == (3, 60, "refuse")
    assert (told.max_networks, told.networks_window) == (2, 60)


def test_starts_of_an_account(make_auth: MakeAuth) -> None:
    """From wherever, in whichever browser; another account is not concerned. By setting the oldest stream ends."""
    auth = make_auth(auth={"starts_per_account": 2, "max_streams": 1, "too_many_streams": "end_oldest"})
    ada, bob = (
        auth.request("POST", "/api/v1/auth/login", {"account": name, "password": PASSWORD}).json["access_token"]
        for name in ("ada", "bob")
    )
    starts = [auth.play("members", Viewer(f"203.0.113.{n}", access=ada)) for n in range(3)]
    assert [each.status for each in starts] == [201, 201, 429]
    other = auth.play("members", Viewer(access=bob)).json["session"]
    first, second = (each.json["session"] for each in starts[:2])
    assert [auth.ask(each, "members")[1] for each in (other, first, second)] == ["", "", ""]
    assert [auth.extend(each) for each in (other, first, second)] == ["", "session_ended", ""]
