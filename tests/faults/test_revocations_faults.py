"""Revocations where something is in their way: they are in force, or it is said that they are not."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest

from edge.admin import parse
from streamgate.access import tokens
from streamgate.errors import StreamGateError
from tests.edge.nodes import RunningNode, node
from tests.edge.test_keyring import ONE, keep
from tests.edge.test_workers_revocations import admin
from tests.faults import mounted
from tests.media_factory import Video, make


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    make(folder / "film.mp4", Video(gop=25), None, seconds=1)
    return folder


def statuses(running: RunningNode, token: str) -> list[int]:
    """What each of the two workers answers."""
    found = []
    with running.each_worker() as both:
        for each in both:
            each.request("GET", f"/t/{token}/v/film/main.m3u8")
            answer = each.getresponse()
            answer.read()
            found.append(answer.status)
    return found


@pytest.mark.parametrize(("exp", "ends"), [(5, True), (970, True), (971, False), (1000, False), (None, False)])
def test_when_there_is_something_to_revoke(exp: int | None, ends: bool) -> None:
    """A token counts for 30 s after its exp, and no longer."""
    text = f'{{"session": "00", "exp": {"null" if exp is None else exp}}}'
    if not ends:
        assert parse(text, 1000.0) == ("session", b"\0", exp)
        return
    with pytest.raises(StreamGateError) as caught:
        parse(text, 1000.0)
    assert caught.value.code == "revocation_ended" and str(exp) in caught.value.detail


def test_an_exp_in_the_past_is_refused(assets: Path, tmp_path: Path) -> None:
    with node(assets, tmp_path / "data") as running:
        done = admin(running, "revoke", "--session", "ab" * 16, "--exp", "5")
        assert (done.returncode, done.stdout) == (1, "") and "[revocation_ended]" in done.stderr
        assert running.status()["revocations"] == 0
        assert running.admin("POST", "/revocations", {"session": "ab" * 16, "exp": 5})[0] == 400


@pytest.mark.parametrize("size", ["8m", "24m"] * mounted.available())
def test_a_full_disk_has_room_for_revocations(assets: Path, tmp_path: Path, size: str) -> None:
    """Somebody else has filled it to the last byte; what is revoked then outlives the node."""
    small, keys = tmp_path / "small", tmp_path / "keys"
    keys.mkdir()
    keep(keys, ONE)
    settings = {"server": {"data": str(small)}, "edge": {"require_token": True}, "tokens": {"keys": str(keys)}}
    made = [os.urandom(16) for _ in range(9)]
    held = [tokens.mint(ONE, asset="film", session=each, expires=int(time.time()) + 1000) for each in made]
    with node(assets, tmp_path / "data", through=mounted.limited(small, size), **settings) as running:
        assert statuses(running, held[0]) == [200, 200]
        with (mounted.seen_by(running, small) / "fill").open("wb", buffering=0) as fill, contextlib.suppress(OSError):
            while True:
                fill.write(bytes(4096))
        room = os.statvfs(mounted.seen_by(running, small))
        assert room.f_bavail == 0
        for session in made[:8]:
            done = running.admin("POST", "/revocations", {"session": session.hex(), "exp": None})
            assert done[0] == 204, done
        assert [statuses(running, token) for token in held] == [[401, 401]] * 8 + [[200, 200]]
