"""Starting, renewing, looking at and ending playback, over the process's socket."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from streamgate.access import tokens
from streamgate.core.settings import ServerSettings, Settings
from streamgate.native import cat
from streamgate.storage import keys
from tests.control.auth_process import AuthProcess, Viewer, make_assets
from tests.control.conftest import PASSWORD, MakeAuth
from tests.edge.nodes import until


def claims(token: str) -> dict[object, object]:
    return cat.decode(token)[3]


def test_public_asset_in_the_path(auth: AuthProcess) -> None:
    answer = auth.play("film")
    assert answer.status == 201
    told = answer.json
    assert told["carriage"] == "path"
    assert told["urls"] == {
        "hls": f"/t/{told['token']}/v/film/main.m3u8",
        "dash": f"/t/{told['token']}/v/film/main.mpd",
    }
    # A native player cannot renew, so the token lasts as long as the session.
    assert told["expires"] == told["cap"] == pytest.approx(time.time() + 14_400, abs=5)
    assert told["renew"]["url"] == "/api/v1/playback/renew" and time.time() < told["renew"]["at"] < told["cap"]
    said = claims(told["token"])
    assert said[cat.CLAIMS["cti"]] == bytes.fromhex(told["session"])
    assert said[cat.CLAIMS["catu"]] == {3: {1: "/v/film/"}}
    assert said[cat.CLAIMS["exp"]] == told["cap"]
    assert answer.headers["Cache-Control"] == "no-store" and answer.headers["Referrer-Policy"] == "no-referrer"
    granted, _ = auth.ask(told["session"])
    assert granted["seconds"] == 60 and granted["asset"] == "film" and granted["grant"] == told["grant"]
    assert (granted["epoch"], granted["cap"], granted["entitlements"], granted["networks"]) == (1, told["cap"], [], [])
    assert len(granted["account"]) == 32 and said[cat.CLAIMS["sub"]] == granted["account"]


def test_an_asset_without_a_policy_is_public_and_a_gated_one_is_the_operators(auth: AuthProcess) -> None:
    assert auth.play("open").status == 201
    refused = auth.play("closed")
    assert (refused.status, refused.json["code"]) == (403, "playback_denied")
    assert refused.headers.get_content_type() == "application/problem+json"


@pytest.mark.parametrize(
    ("asset", "status", "code"), [("nothing", 404, "asset_not_found"), ("broken", 422, "asset_description")]
)
def test_assets_that_cannot_be_played(auth: AuthProcess, asset: str, status: int, code: str) -> None:
    answer = auth.play(asset)
    assert (answer.status, answer.json["code"]) == (status, code)


def test_password(auth: AuthProcess) -> None:
    assert auth.play("word", password=PASSWORD).status == 201
    for wrong in ({"password": "wrong"}, {"password": ""}, {}):
        refused = auth.request("POST", "/api/v1/playback/word", wrong)
        assert (refused.status, refused.json["code"]) == (403, "password_wrong")


def test_accounts(auth: AuthProcess, sign_in: Callable[[str], Viewer]) -> None:
    stranger = auth.play("members")
    assert (stranger.status, stranger.json["code"]) == (401, "sign_in_required")
    assert stranger.headers["WWW-Authenticate"] == "Bearer" and stranger.json["sign_in"] == "/api/v1/auth/login"
    assert auth.play("members", sign_in("ada")).status == 201
    assert auth.play("anyone", sign_in("eve")).status == 201
    refused = auth.play("members", sign_in("eve"))
    assert (refused.status, refused.json["code"]) == (403, "playback_denied")


def test_opaque_names(auth: AuthProcess, sign_in: Callable[[str], Viewer]) -> None:
    """An account is the same everywhere, its name is nowhere."""
    ada = sign_in("ada")
    first, second = (auth.play(asset, ada).json for asset in ("members", "anyone"))
    leases = [auth.ask(told["session"], asset)[0] for told, asset in ((first, "members"), (second, "anyone"))]
    assert leases[0]["account"] == leases[1]["account"] and len(leases[0]["account"]) == 32
    assert leases[0]["entitlements"] == leases[1]["entitlements"] != [leases[0]["account"]]
    assert claims(first["token"])[cat.CLAIMS["sub"]] == leases[0]["account"]
    assert not re.search(r"\bada\b", str(leases))


@pytest.mark.parametrize("carriage", ["header", "cookie"])
def test_short_tokens_are_renewed(auth: AuthProcess, carriage: str) -> None:
    answer = auth.play("film", carriage=carriage)
    told = answer.json
    assert told["expires"] == pytest.approx(time.time() + 300, abs=5)
    assert told["urls"]["hls"] == "/v/film/main.m3u8"
    said = claims(told["token"])
    named = {3: "cta-common-access-token"} if carriage == "cookie" else {4: "CTA-Common-Access-Token"}
    assert said[cat.CLAIMS["catr"]] == {0: 1 if carriage == "cookie" else 2, 1: 300, 2: 120, **named}
    renewed = auth.request("POST", "/api/v1/playback/renew", {"token": told["token"]})
    assert renewed.status == 200
    again = claims(renewed.json["token"])
    assert again[cat.CLAIMS["cti"]] == bytes.fromhex(told["session"]) + b"\1"
    assert {name: renewed.json[name] for name in ("session", "grant", "cap")} == {
        name: told[name] for name in ("session", "grant", "cap")
    }
    third = auth.request("POST", "/api/v1/playback/renew", {}, Viewer(access=renewed.json["token"]))
    assert claims(third.json["token"])[cat.CLAIMS["cti"]] == bytes.fromhex(told["session"]) + b"\2"
    assert ("cta-common-access-token" in renewed.cookies) == (carriage == "cookie")


def test_cookie(auth: AuthProcess) -> None:
    answer = auth.play("film", carriage="cookie")
    cookie = answer.cookie("cta-common-access-token")
    assert cookie.value == answer.json["token"]
    assert (cookie["path"], cookie["secure"], cookie["httponly"], cookie["samesite"]) == ("/v/film/", True, True, "Lax")
    renewed = auth.request("POST", "/api/v1/playback/renew", viewer=Viewer(cookies=answer.cookies))
    assert renewed.status == 200 and renewed.json["session"] == answer.json["session"]
    for host, secure in (("127.0.0.1:8080", ""), ("localhost", ""), ("[::1]:80", ""), ("video.example", True)):
        plain = auth.play("film", Viewer("127.0.0.1", scheme="http", host=host), carriage="cookie")
        assert plain.cookie("cta-common-access-token")["secure"] == secure, host


def test_the_browser_is_known_again(auth: AuthProcess) -> None:
    first = auth.play("film")
    name = "__Host-streamgate-browser"
    cookie = first.cookie(name)
    assert (cookie["path"], cookie["secure"], cookie["httponly"], cookie["domain"]) == ("/", True, True, "")
    second = auth.play("film", Viewer(cookies={name: cookie.value}))
    assert not second.cookies
    of = [auth.ask(each.json["session"])[0]["account"] for each in (first, second, auth.play("film"))]
    assert of[0] == of[1] != of[2]
    assert name in auth.play("film", Viewer(cookies={name: "made up"})).cookies


def test_looking_at_a_session_and_ending_it(auth: AuthProcess) -> None:
    told = auth.play("film", carriage="header").json
    viewer = Viewer()
    shown = auth.request("GET", "/api/v1/playback/session", None, viewer, CTA_Common_Access_Token=told["token"])
    assert shown.status == 200 and shown.json["session"] == told["session"] and shown.json["cap"] == told["cap"]
    assert auth.request("DELETE", "/api/v1/playback/session", {"token": told["token"]}).status == 204
    assert {"news": True} in auth.messages
    assert auth.ask(told["session"]) == (None, "session_ended")
    assert auth.extend(told["session"]) == "session_ended"
    for method, path in (("GET", "/api/v1/playback/session"), ("POST", "/api/v1/playback/renew")):
        refused = auth.request(method, path, None, viewer, CTA_Common_Access_Token=told["token"])
        assert (refused.status, refused.json["code"]) == (401, "session_ended")
        assert refused.json["renew"] == "/api/v1/playback/renew"
        assert "/api/v1/playback/renew" in refused.headers["WWW-Authenticate"]
    assert auth.request("DELETE", "/api/v1/playback/session", {"token": told["token"]}).status == 204


def test_tokens_that_are_none(auth: AuthProcess) -> None:
    one, other = (auth.play("film").json["token"] for _ in range(2))
    cases: list[tuple[dict[str, str], int, str]] = [
        ({}, 401, "token_required"),
        ({"token": one[:-1] + ("A" if one[-1] != "A" else "B")}, 401, "token_"),
        ({"token": "x" * 1100}, 401, "token_too_long"),
    ]
    for body, status, code in cases:
        refused = auth.request("POST", "/api/v1/playback/renew", body)
        assert refused.status == status and refused.json["code"].startswith(code), refused.json
    both = auth.request("POST", "/api/v1/playback/renew", {"token": one}, CTA_Common_Access_Token=other)
    assert (both.status, both.json["code"]) == (400, "token_ambiguous")


def test_expired_tokens(auth: AuthProcess) -> None:
    """exp and 30 s of grace are over: nothing renews it, but its session can be ended."""
    session = bytes.fromhex(auth.play("film").json["session"])
    settings = Settings(server=ServerSettings(data=str(auth.data)))
    key = keys.signer(settings, keys.configured(settings))
    late, graced = (tokens.mint(key, asset="film", session=session, expires=int(time.time()) - ago) for ago in (31, 5))
    renewed = auth.request("POST", "/api/v1/playback/renew", {"token": graced})
    assert renewed.status == 200 and renewed.json["expires"] > time.time()
    for method, path in (("POST", "renew"), ("GET", "session")):
        refused = auth.request(method, f"/api/v1/playback/{path}", None, CTA_Common_Access_Token=late)
        assert (refused.status, refused.json["code"]) == (401, "token_expired")
    assert auth.request("DELETE", "/api/v1/playback/session", {"token": late}).status == 204
    assert auth.extend(session.hex()) == "session_ended"


@pytest.mark.parametrize(
    "body", [b"[]", b"{", b'{"password": 1}', b'{"other": "x"}', b'{"carriage": "pigeon"}', b"[" * 20_000]
)
def test_bodies_that_are_none(auth: AuthProcess, body: bytes) -> None:
    answer = auth.request("POST", "/api/v1/playback/film", body)
    assert (answer.status, answer.json["code"]) == (400, "request_malformed")


def test_forms_and_large_bodies_are_refused(auth: AuthProcess) -> None:
    form = auth.request("POST", "/api/v1/playback/film", b'{"carriage": "path"}', Content_Type="text/plain")
    assert (form.status, form.json["code"]) == (400, "request_malformed")
    assert auth.request("POST", "/api/v1/playback/film", b" " * 100_000).json["code"] == "body_too_large"


def test_paths_and_methods_that_there_are_not(auth: AuthProcess) -> None:
    assert auth.request("GET", "/api/v1/other").json["code"] == "not_found"
    wrong = auth.request("GET", "/api/v1/playback/film")
    assert (wrong.status, wrong.json["code"], wrong.headers["Allow"]) == (405, "method_not_allowed", "POST")


def test_a_policy_that_changes(make_auth: MakeAuth, assets: Path) -> None:
    """What asset.toml says counts within moments; where it has gone, nobody gets in."""
    auth = make_auth()
    make_assets(assets, moving='[policy]\nkind = "public"')
    assert until(lambda: auth.play("moving").status == 201, "the new asset is found")
    make_assets(assets, moving="gated = true")
    until(lambda: auth.play("moving").status == 403, "it is gated")
    (assets / "moving" / "asset.toml").unlink()
    answers: list[int] = []

    def gone() -> bool:
        answers.append(auth.play("moving").status)
        return answers[-1] == 404

    until(gone, "it has gone")
    assert set(answers) <= {403, 404}


def test_rates(make_auth: MakeAuth) -> None:
    auth = make_auth(auth={"starts_per_account": 3, "renewals_per_session": 2, "logins_per_address": 2})
    answers = [auth.play("film", Viewer("203.0.113.9")) for _ in range(4)]
    assert [each.status for each in answers] == [201, 201, 201, 429]
    assert answers[3].json["code"] == "rate_limited" and answers[3].headers["Retry-After"]
    # Whoever has a cookie each time comes from the same address still.
    cookies = auth.play("film", Viewer("198.51.100.2")).cookies
    known = [auth.play("film", Viewer("198.51.100.2", cookies=cookies)).status for _ in range(3)]
    assert known == [201, 201, 429]
    ended = [auth.request("DELETE", "/api/v1/playback/session", {"token": "x"}).status for _ in range(4)]
    assert ended == [401, 401, 401, 429]
    told = auth.play("film", Viewer("198.51.100.1")).json
    renewals = [auth.request("POST", "/api/v1/playback/renew", {"token": told["token"]}).status for _ in range(3)]
    assert renewals == [200, 200, 429]
    words = [auth.play("word", Viewer("192.0.2.1"), password="wrong").status for _ in range(3)]
    assert words == [403, 403, 429]
