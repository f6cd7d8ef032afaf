"""Whatever is revoked is refused: in every worker within a second, after kill -9 of all, and what was used stays used."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.edge.nodes import RunningNode
from tests.scenarios import sessions
from tests.scenarios.sessions import LEASE_S, Player

HERE_S = 1.0  # until no worker of the node gives a byte
NAMES = ("ada", "bob", "eve", "fay", "guy")


def assets(root: Path) -> Path:
    """``film`` and ``other``, for every account."""
    return sessions.films(root, dict.fromkeys(("film", "other"), '[policy]\nkind = "allow"\n'))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """Embedded defaults and three workers."""
    base = tmp_path_factory.mktemp("revoked")
    root = assets(tmp_path_factory.mktemp("films"))
    with sessions.with_auth(root, base / "data", sessions.accounts(base / "accounts.toml", *NAMES), workers=3) as made:
        yield made


class Viewers:
    """One of each account: ``ada``'s session, ``bob``'s grant, ``eve`` herself and what ``fay`` may see are revoked, ``guy`` is not."""

    def __init__(self, running: RunningNode) -> None:
        self.signed = {name: sessions.sign_in(running, name) for name in NAMES}
        self.told = {name: self.start(running, name) for name in NAMES}
        self.subject = self.start(running, "guy", "other")

    def start(self, running: RunningNode, name: str, asset: str = "film") -> dict[str, Any]:
        return sessions.start(running, asset, self.signed[name]["access_token"])

    def revoke(self, running: RunningNode) -> float:
        """All that is to be revoked; when that was done."""
        told = self.told
        assert sessions.end(running, told["ada"]) == 204
        sessions.revoke(running, grant=told["bob"]["grant"])
        sessions.revoke(running, account=sessions.subject(told["eve"]).encode().hex())
        sessions.revoke(running, entitlement=sessions.entitlement(running, told["fay"], "film").encode().hex())
        sessions.revoke(running, asset=b"other".hex())
        return time.monotonic()

    @contextlib.contextmanager
    def playing(self, *nodes: RunningNode) -> Iterator[tuple[list[list[Player]], list[Player]]]:
        """Those who are to go by node, and those who stay."""
        with contextlib.ExitStack() as stack:
            gone = [
                [
                    *(stack.enter_context(Player(node, self.told[name]["token"])) for name in NAMES[:4]),
                    stack.enter_context(Player(node, self.subject["token"], "other")),
                ]
                for node in nodes
            ]
            stay = [stack.enter_context(Player(node, self.told["guy"]["token"])) for node in nodes]
            yield gone, stay

    def paths(self) -> list[str]:
        """Of those who are gone."""
        film = [f"/t/{self.told[name]['token']}/v/film/main.m3u8" for name in NAMES[:4]]
        return [*film, f"/t/{self.subject['token']}/v/other/main.m3u8"]


def refused(players: list[Player], since: float) -> None:
    """Nobody gives them a byte from then on, though more than a lease passes."""
    for player in players:
        player.until(401)
        player.goes_on_until(since + 1.5 * LEASE_S)
        assert player.statuses(since) == {401}


def test_no_byte_after_a_second_nor_after_kill_9(running: RunningNode) -> None:
    viewers = Viewers(running)
    with viewers.playing(running) as (gone, stay):
        for player in (*gone[0], *stay):
            sessions.played(player, 0.2)
        done = viewers.revoke(running)
        refused(gone[0], done + HERE_S)
        assert stay[0].statuses() == {200}
        path = stay[0].paths[0]
    used = viewers.signed["guy"]["refresh_token"]
    newer = refresh(running, used)[1]["refresh_token"]
    newest = refresh(running, newer)[1]["refresh_token"]
    running.kill()
    running.start()
    # From the very first request on, whether or not there is an auth role yet.
    assert sessions.everywhere(running, viewers.paths()) <= {401, 503}
    sessions.auth_role(running)
    assert sessions.everywhere(running, viewers.paths()) == {401}
    assert sessions.everywhere(running, [path]) == {200}
    assert refresh(running, used)[0] == 401, "it was used"
    assert refresh(running, newest)[0] == 401, "with it all that came of it has ended"


def refresh(running: RunningNode, token: str) -> tuple[int, Any]:
    status, _, told = sessions.call(running, "POST", "auth/refresh", {"refresh_token": token})
    return status, told


@pytest.mark.slow
def test_a_key(running: RunningNode) -> None:
    """The last one, for nobody's token is good afterwards."""
    told = sessions.start(running, "film", sessions.sign_in(running, "guy")["access_token"])
    with Player(running, told["token"]) as player:
        sessions.played(player, 0.2)
        sessions.revoke(running, kid=sessions.kid(told).hex())
        refused([player], time.monotonic() + HERE_S)
