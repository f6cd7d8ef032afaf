"""The sessions benchmark: its rows, its goal that there is no difference, and what it holds ours and its peer to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from benchmarks import sessions
from benchmarks.measure import Row
from benchmarks.peers.auth import ASSET, auth
from benchmarks.peers.signing import signing
from benchmarks.sessions import hits, live, starts
from streamgate.access.sessions import Session
from tests.conftest import ROOT


def row(low: float | None, high: float | None) -> Row:
    return Row("sessions", "1 KB", "CPU a request", "µs", 13.0, "peer", 13.0, 1.0, low, high, 0.98, None, None, 6)


@pytest.mark.parametrize(
    ("low", "high", "met"),
    [
        (0.985, 1.015, True),
        (0.98, 1.02, True),
        (0.97, 1.01, "undecided"),
        (0.99, 1.03, "undecided"),
        (0.981, 0.999, False),
        (1.001, 1.019, False),
        (0.9, 0.95, False),
        (None, None, None),
    ],
)
def test_no_difference_is_an_interval_around_1_that_is_narrow(low: float, high: float, met: object) -> None:
    assert hits.alike(row(low, high)).met == met


def test_what_is_unknown_is_refused() -> None:
    with pytest.raises(click.BadParameter, match="no hits; there are hit, start, live, redis, revoked"):
        list(sessions.run(runs=1, seconds=1, chosen=["hits"]))


def test_sessions_are_rows_that_the_auth_role_reads() -> None:
    pairs, rows = live.sessions(3)
    found = [Session.decode(each.value) for each in rows if each.key.startswith("session/")]
    assert [each.id.hex() for each in found] == [session for session, _ in pairs]
    assert len({each.networks for each in found}) == len({each.account for each in found}) == 3


def test_ours_and_the_bare_handler_take_the_same_tokens_and_refuse_others() -> None:
    pairs, rows = live.sessions(2)
    with auth(None, names=["ada"], rows=rows) as ours:
        token = ours.access_token("ada")
        told = json.loads(starts.asked(ours.unix, token))
        assert told["urls"]["hls"].endswith(f"/v/{ASSET}/main.m3u8") and 20 < ours.memory() < 400
        live.check(ours, live.call(pairs))
        with pytest.raises(RuntimeError, match="not all leases are granted"):
            live.check(ours, live.call([*pairs, ("00" * 16, "203.0.113.0/24")]))
        with signing(None, public=ours.public_key(), size=900) as bare:
            assert len(starts.asked(bare.unix, token)) == 900
            for server in (ours, bare):
                with pytest.raises(RuntimeError, match="answered 401"):
                    starts.asked(server.unix, f"{token[:-8]}AAAAAAAA")


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.needs("redis-server", "gcc")
def test_the_smallest_run_prints_every_row(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "sessions", "--quick", "--json"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["case"], row["metric"]) for row in rows] == [
        ("1 KB, sessions on", "requests"),
        ("1 KB, sessions on", "CPU a request"),
        ("playback start", "requests"),
        ("playback start", "CPU a request"),
        ("3000 live sessions", "memory"),
        ("3000 live sessions", "leases"),
        ("3000 live sessions over Redis", "memory"),
        ("3000 live sessions over Redis", "leases"),
        ("1 KB, 3000 revocations", "requests"),
        ("1 KB, 3000 revocations", "CPU a request"),
    ]
    assert all(row["ours"] > 0 and row["peer_value"] > 0 for row in rows)
    held = [row["goal"] for row in rows]
    assert held == [0.95, 0.95, 0.5, 0.5, 1.0, 1.0, 1.0, 1.0, None, 0.98]
