"""What survives: the death of the process, the death of its store, keys that change, two nodes that share a store."""

from __future__ import annotations

import re
import resource
import sqlite3
import time
from pathlib import Path
from typing import Any

from streamgate.core.settings import ServerSettings, Settings, TokenSettings
from streamgate.native import cat
from streamgate.storage import keys
from tests.control.auth_process import WAIT_S, AuthProcess, Viewer
from tests.control.conftest import PASSWORD, MakeAuth
from tests.edge.nodes import until
from tests.services.redis import RedisServer


def end(auth: AuthProcess, token: str) -> int:
    return auth.request("DELETE", "/api/v1/playback/session", {"token": token}).status


def test_killed_and_started_again(make_auth: MakeAuth) -> None:
    auth = make_auth()
    going, gone = (auth.play("film", carriage="header").json for _ in range(2))
    revoked = auth.play("film").json
    login = auth.request("POST", "/api/v1/auth/login", {"account": "ada", "password": PASSWORD, "cookie": False}).json
    assert auth.ask(going["session"])[0] and auth.ask(gone["session"])[0]
    assert end(auth, gone["token"]) == 204
    auth.kill()
    # The operator revokes one while it is away: the parent writes it into the store.
    with sqlite3.connect(auth.store) as db:
        row = "revoke.session", bytes.fromhex(revoked["session"]), int(time.time()) + 1000, b"u" * 16
        db.execute("INSERT INTO events (type, subject, until, uid) VALUES (?, ?, ?, ?)", row)
    db.close()
    auth.start()
    assert auth.extend(going["session"]) == ""
    assert auth.extend(gone["session"]) == "session_ended"
    assert auth.extend(revoked["session"]) == "session_ended"
    assert auth.request("POST", "/api/v1/playback/renew", {"token": going["token"]}).status == 200
    assert auth.play("members", Viewer(access=login["access_token"])).status == 201
    again = auth.request("POST", "/api/v1/auth/refresh", {"refresh_token": login["refresh_token"]})
    assert again.status == 200


def test_killed_between_the_row_and_the_event(make_auth: MakeAuth) -> None:
    """A session that ended in the store is ended, though nobody was told."""
    auth = make_auth()
    told = auth.play("film").json
    assert end(auth, told["token"]) == 204
    auth.kill()
    with sqlite3.connect(auth.store) as db:
        assert db.execute("DELETE FROM events").rowcount == 1
    db.close()
    auth.start()
    assert auth.extend(told["session"]) == "session_ended"
    # Asked again, it tells everybody after all.
    assert end(auth, told["token"]) == 204
    with sqlite3.connect(auth.store) as db:
        assert db.execute("SELECT type, subject FROM events").fetchall() == [
            ("revoke.session", bytes.fromhex(told["session"]))
        ]
    db.close()


def test_refused_grants_are_written_down(make_auth: MakeAuth) -> None:
    """The row is there before anything is checked, and says how it went."""
    auth = make_auth()
    assert auth.play("word", password="wrong").status == 403
    with sqlite3.connect(auth.store) as db:
        (row,) = db.execute("SELECT value FROM kv WHERE key LIKE 'grant/%'").fetchone()
        assert db.execute("SELECT count(*) FROM kv WHERE key LIKE 'session/%'").fetchone() == (0,)
    db.close()
    assert '"state":"ended"' in row.decode() and '"epoch":2' in row.decode()


def test_a_disk_that_takes_nothing(make_auth: MakeAuth) -> None:
    """Nobody new gets in, with 503 and Retry-After; who plays goes on."""
    auth = make_auth()
    told = auth.play("film").json
    _, hard = resource.prlimit(auth.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(auth.process.pid, resource.RLIMIT_FSIZE, (0, hard))
    for refused in (auth.play("film"), auth.request("DELETE", "/api/v1/playback/session", {"token": told["token"]})):
        assert (refused.status, refused.json["code"]) == (503, "store_unavailable")
        assert refused.headers["Retry-After"] and str(auth.data) not in refused.body.decode()
    assert auth.extend(told["session"]) == ""
    resource.prlimit(auth.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert end(auth, told["token"]) == 204
    assert auth.extend(told["session"]) == "session_ended"


def test_a_new_key(make_auth: MakeAuth) -> None:
    """A new generation signs; tokens and sessions of before go on."""
    auth = make_auth()
    before = auth.play("film", carriage="header").json
    workshop = keys.workshop(Settings(server=ServerSettings(data=str(auth.data))))
    workshop.sign(workshop.new())

    def kid() -> object:
        return cat.decode(auth.play("film").json["token"])[2][4]

    old = cat.decode(before["token"])[2][4]
    until(lambda: kid() != old, "the new key signs")
    renewed = auth.request("POST", "/api/v1/playback/renew", {"token": before["token"]})
    assert renewed.status == 200 and renewed.json["session"] == before["session"]
    assert cat.decode(renewed.json["token"])[2][4] != old


def test_two_nodes(make_auth: MakeAuth, redis_server: RedisServer, tmp_path: Path) -> None:
    """Sessions of one node are the other's: renewed there, ended there, and neither trusts its memory."""
    shared = {"url": redis_server.url, "prefix": f"{tmp_path.name}:"}
    key_folder = {"keys": str(tmp_path / "keys"), "root": str(tmp_path / "root")}
    (tmp_path / "keys").mkdir(mode=0o700)
    keys.workshop(Settings(tokens=TokenSettings(**key_folder))).first()  # type: ignore[arg-type]
    one, two = (make_auth(name, redis=shared, tokens=key_folder) for name in ("one", "two"))
    told = one.play("film", carriage="header").json
    assert one.ask(told["session"])[0] and two.ask(told["session"])[0]
    assert two.request("POST", "/api/v1/playback/renew", {"token": told["token"]}).status == 200
    assert end(two, told["token"]) == 204
    # The event has reached nobody: the row is enough.
    assert one.extend(told["session"]) == "session_ended"
    ada = one.request("POST", "/api/v1/auth/login", {"account": "ada", "password": PASSWORD, "cookie": False}).json
    assert two.request("POST", "/api/v1/auth/refresh", {"refresh_token": ada["refresh_token"]}).status == 200
    leases = [
        node.ask(node.play("anyone", Viewer(access=ada["access_token"])).json["session"], "anyone")[0]
        for node in (one, two)
    ]
    assert leases[0]["account"] == leases[1]["account"]


def test_streams_and_networks_of_two_nodes(make_auth: MakeAuth, redis_server: RedisServer, tmp_path: Path) -> None:
    """What one node lends counts in the other."""
    shared: dict[str, Any] = {
        "redis": {"url": redis_server.url, "prefix": f"{tmp_path.name}:"},
        "tokens": {"keys": str(tmp_path / "keys"), "root": str(tmp_path / "root")},
        "auth": {"networks_window": 2.0},
    }
    (tmp_path / "keys").mkdir(mode=0o700)
    keys.workshop(Settings(tokens=TokenSettings(**shared["tokens"]))).first()
    one, two = (make_auth(name, **{**shared}) for name in ("one", "two"))
    login = one.request("POST", "/api/v1/auth/login", {"account": "ada", "password": PASSWORD}).json
    ada = Viewer(access=login["access_token"])
    few = [one.play("few", ada).json for _ in range(4)]
    asked = [node.ask(told["session"], "few")[1] for node, told in zip((one, two, one, two), few, strict=True)]
    assert asked == ["", "", "", "too_many_streams"]
    assert two.play("few", ada).json["code"] == "too_many_streams"
    assert end(two, few[0]["token"]) == 204
    assert two.ask(few[3]["session"], "few")[0] is not None
    newest = [one.play("newest", Viewer(access=login["access_token"])).json["session"] for _ in range(3)]
    assert end(one, few[1]["token"]) == end(one, few[2]["token"]) == end(one, few[3]["token"]) == 204
    assert [node.ask(each, "newest")[1] for node, each in zip((one, two, one), newest, strict=True)] == ["", "", ""]
    assert [two.extend(each) for each in newest] == ["session_ended", "", ""]
    link = one.play("film").json["session"]
    places = [f"10.0.{n}.0/24" for n in range(3)]
    refused = [node.ask(link, network=each)[1] for node, each in zip((one, two, one), places, strict=True)]
    assert refused == ["", "", "session_shared"]
    # Whoever believes what it has told looks again when half of the time has passed.
    nodes = (one, two, one)
    until(
        lambda: all(node.extend(link, each) == "session_shared" for node, each in zip(nodes, places, strict=True)),
        "all hear that the link is shared",
    )


def test_the_shared_store_away(make_auth: MakeAuth, own_redis: RedisServer, tmp_path: Path) -> None:
    auth = make_auth(redis={"url": own_redis.url, "prefix": f"{tmp_path.name}:"})
    until(lambda: "need one root of keys" in auth.log.read_text(), "it warns of a root that no other node has")
    session = auth.play("film").json["session"]
    assert auth.extend(session) == ""
    own_redis.kill()
    pair = {"node": "n", "extend": [[session, "203.0.113.0/24"]]}
    for refused in (auth.request("POST", "/leases", pair), auth.play("film"), auth.request("GET", "/ready")):
        assert (refused.status, refused.json["code"]) == (503, "store_unavailable")
        assert own_redis.url not in refused.body.decode()


def test_nothing_secret_in_logs(make_auth: MakeAuth) -> None:
    """Neither tokens, passwords nor addresses, whatever goes wrong."""
    auth = make_auth()
    viewer = Viewer("203.0.113.77")
    told = auth.play("word", viewer, password="hunter22")
    token = auth.play("film", viewer).json["token"]
    auth.request("POST", "/api/v1/playback/renew", {"token": token}, viewer)
    login = auth.request("POST", "/api/v1/auth/login", {"account": "ada", "password": PASSWORD, "cookie": False}).json
    for _ in range(2):
        auth.request("POST", "/api/v1/auth/refresh", {"refresh_token": login["refresh_token"]}, viewer)
    resource.prlimit(auth.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    auth.play("film", viewer)
    assert told.status == 403
    auth.stop()
    log = auth.log.read_text()
    for secret in (
        token,
        token[40:80],
        "hunter22",
        PASSWORD,
        "203.0.113",
        login["refresh_token"],
        login["access_token"],
    ):
        assert secret not in log
    assert not re.search(r"[A-Za-z0-9_-]{60,}", log)


def test_stopping(make_auth: MakeAuth) -> None:
    auth = make_auth()
    assert auth.stop() == 0
    assert {"closed": True} in auth.messages and {"stopped": True, "cut": 0} in auth.messages


def test_a_parent_that_has_gone(make_auth: MakeAuth) -> None:
    auth = make_auth()
    auth.leave()
    assert auth.process.wait(WAIT_S) == 0


def test_what_keeps_it_from_starting(make_auth: MakeAuth, tmp_path: Path) -> None:
    (tmp_path / "accounts.toml").write_text("[accounts]\nada = 'x'\n")
    (tmp_path / "accounts.toml").chmod(0o600)
    auth = make_auth(auth={"accounts": str(tmp_path / "accounts.toml")})
    assert auth.process.wait(20) == 1
    assert auth.messages[0]["failed"]["code"] == "config_invalid"
