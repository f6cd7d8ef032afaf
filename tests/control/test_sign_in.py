"""Signing in, and staying so."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import pytest

from tests.control.auth_process import Answer, AuthProcess, Viewer
from tests.control.conftest import PASSWORD, MakeAuth

LOGIN, REFRESH, LOGOUT = (f"/api/v1/auth/{name}" for name in ("login", "refresh", "logout"))
COOKIE = "__Host-streamgate-refresh"


def login(auth: AuthProcess, name: str = "ada", **more: Any) -> Answer:
    answer = auth.request("POST", LOGIN, {"account": name, "password": PASSWORD, **more})
    assert answer.status == 200, answer.body
    return answer


def refresh(auth: AuthProcess, token: str) -> Answer:
    return auth.request("POST", REFRESH, {"refresh_token": token})


def test_a_browser(auth: AuthProcess) -> None:
    answer = login(auth)
    cookie = answer.cookie(COOKIE)
    assert (cookie["path"], cookie["secure"], cookie["httponly"], cookie["samesite"]) == ("/", True, True, "Strict")
    assert "refresh_token" not in answer.json and answer.json["expires_in"] == 600
    header = json.loads(urlsafe_b64decode(answer.json["access_token"].partition(".")[0] + "=="))
    assert (header["alg"], header["typ"]) == ("EdDSA", "at+jwt")
    again = auth.request("POST", REFRESH, viewer=Viewer(cookies=answer.cookies))
    assert again.status == 200 and again.cookies[COOKIE] != cookie.value
    assert auth.play("members", Viewer(access=again.json["access_token"])).status == 201
    out = auth.request("POST", LOGOUT, viewer=Viewer(cookies=again.cookies))
    assert out.status == 204 and out.cookies[COOKIE] == ""
    assert auth.request("POST", REFRESH, viewer=Viewer(cookies=again.cookies)).json["code"] == "refresh_invalid"


@pytest.mark.parametrize(("name", "password"), [("ada", "wrong"), ("nobody", PASSWORD), ("ada' --", PASSWORD)])
def test_wrong(auth: AuthProcess, name: str, password: str) -> None:
    answer = auth.request("POST", LOGIN, {"account": name, "password": password})
    assert (answer.status, answer.json["code"]) == (401, "sign_in_failed")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_retry_gets_the_same_and_reuse_ends_the_family(auth: AuthProcess) -> None:
    first = login(auth, cookie=False).json["refresh_token"]
    second = refresh(auth, first).json["refresh_token"]
    assert refresh(auth, first).json["refresh_token"] == second
    third = refresh(auth, second).json["refresh_token"]
    stolen = refresh(auth, first)
    assert (stolen.status, stolen.json["code"]) == (401, "refresh_invalid")
    assert refresh(auth, third).json["code"] == "refresh_invalid"


def test_an_empty_member_brings_no_cookie_into_the_body(auth: AuthProcess) -> None:
    kept = Viewer(cookies=login(auth).cookies)
    again = auth.request("POST", REFRESH, {"refresh_token": ""}, kept)
    assert again.status == 200 and "refresh_token" not in again.json and COOKIE in again.cookies


def test_the_id_of_a_family_ends_nothing(auth: AuthProcess) -> None:
    """It is in every access token."""
    told = login(auth, cookie=False).json
    id = urlsafe_b64decode(told["refresh_token"])[:16]
    forged = urlsafe_b64encode(id + bytes(32)).decode()
    assert refresh(auth, forged).json["code"] == "refresh_invalid"
    assert auth.request("POST", LOGOUT, {"refresh_token": forged}).status == 401
    assert refresh(auth, told["refresh_token"]).status == 200


@pytest.mark.parametrize("token", ["x", "A" * 64, "é" * 64])
def test_refresh_tokens_that_are_none(auth: AuthProcess, token: str) -> None:
    assert refresh(auth, token).json["code"] == "refresh_invalid"
    assert auth.request("POST", LOGOUT, {"refresh_token": token}).status in (204, 401)


def test_no_token_stands_for_another(auth: AuthProcess) -> None:
    """A playback token signs nobody in, and an access token plays nothing."""
    access = login(auth).json["access_token"]
    playback = auth.play("film").json["token"]
    assert auth.play("members", Viewer(access=playback)).json["code"] == "sign_in_required"
    assert auth.play("film", Viewer(access=playback)).json["code"] == "sign_in_required"
    renewed = auth.request("POST", "/api/v1/playback/renew", {"token": access})
    assert renewed.status == 401 and renewed.json["code"].startswith("token_")


def test_attempts_are_limited(make_auth: MakeAuth) -> None:
    auth = make_auth(auth={"logins_per_address": 2})
    told = [auth.request("POST", LOGIN, {"account": "ada", "password": "x"}).status for _ in range(3)]
    assert told == [401, 401, 429]
    other = auth.request("POST", LOGIN, {"account": "ada", "password": "x"}, Viewer("198.51.100.1"))
    assert other.status == 401
