"""A token that is put where none belongs is in no log: not in the access log, not among the other lines."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from edge.paths import without_secrets
from streamgate.access import tokens
from tests.edge.nodes import node, until
from tests.edge.test_keyring import ONE


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/v/film/main.m3u8", "/v/film/main.m3u8"),
        (f"/{'a' * 39}/x", f"/{'a' * 39}/x"),
        (f"/{'aB-_9' * 8}/x", "/…/x"),
        (f"/v/f/main.m3u8&T={'a' * 200};x={'b' * 41}.c", "/v/f/main.m3u8&T=…;x=….c"),
    ],
)
def test_what_is_left_of_a_path(path: str, shown: str) -> None:
    assert without_secrets(path) == shown


def test_two_workers_log_no_token(folder: Path, tmp_path: Path) -> None:
    token = tokens.mint(ONE, asset="film", session=os.urandom(16), expires=int(time.time()) + 1000)
    name, access = "CTA-Common-Access-Token", tmp_path / "access.log"
    spelt = [
        f"/v/film/main.m3u8&{name}={token}",
        f"/v/film/main.m3u8;x={token}",
        f"/v/film/{token}/main.m3u8",
        f"/v/{token}/main.m3u8",
        f"/T/{token}/v/film/main.m3u8",
        f"/{token}",
        f"/t/{token}",
        f"/t/{token}/t/{token}/v/film/main.m3u8",
        f"/t/{token}/v/film/main.m3u8;x={token}",
        f"/t/{token}/v/film/{token}",
        f"/v/film/main.m3u8?{name}={token}",
        f"//t/{token}/v/film/main.m3u8",
    ]
    with node(folder, tmp_path / "data", log={"access": True, "access_file": str(access)}) as running:
        for path in spelt:
            running.get(path)
        running.get("/v/film/nothing")
        running.stop()
        until(lambda: access.exists() and '"/v/film/nothing"' in access.read_text(), "the last line")
        lines, others = access.read_text(), running.log.read_text()
    assert lines.count("\n") == len(spelt) + 1 and "request failed" in others and "/v/film/nothing" in others
    for text in (lines, others):
        assert not any(token[at : at + 40] in text for at in range(0, len(token) - 40, 20))
