"""Starting to play, from an access token to a playback token, against a bare handler with as much cryptography."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable, Iterator, Sequence

from benchmarks.load import Report, Target
from benchmarks.measure import Row
from benchmarks.peers.auth import ASSET, Auth, auth
from benchmarks.peers.signing import Signing, signing
from benchmarks.rounds import Contestant, Goals, contest
from benchmarks.sessions.bench import NAME, Bench

MORE = 3  # times as many connections as elsewhere: who waits for the disk leaves the core to others
ACCOUNTS = 2000  # each has an access token of its own: nobody's signature is looked at again and again
GOALS = Goals(0.5)
_PATH = f"/api/v1/playback/{ASSET}"
_TOLD = {
    "X-StreamGate-Client": "203.0.113.7",
    "X-StreamGate-Scheme": "https",
    "X-StreamGate-Host": "video.example",
}


def run(bench: Bench) -> Iterator[Row]:
    """Starts a second, and CPU a start, in which the store's writes and its thread are counted."""
    names = [f"viewer-{n}" for n in range(ACCOUNTS)]
    with auth(bench.server, names=names) as ours:
        tokens = [ours.access_token(name) for name in names]
        size = len(asked(ours.unix, tokens[0]))
        with signing(bench.server, public=ours.public_key(), size=size) as bare:
            if len(asked(bare.unix, tokens[0])) != size:
                raise RuntimeError("the answers differ in length")
            yield from contest(
                "playback start",
                _load(bench, ours, tokens),
                [Contestant(bare.name, _load(bench, bare, tokens), f"answers of {size} B", rival=True)],
                GOALS,
                bench.runs,
                benchmark=NAME,
            )


def asked(unix: str, token: str) -> bytes:
    """The answer to one start; raises RuntimeError where it is none."""
    asking = http.client.HTTPConnection("auth")
    asking.sock = socket.socket(socket.AF_UNIX)
    try:
        asking.sock.connect(unix)
        asking.request("POST", _PATH, headers={**_TOLD, "Authorization": f"Bearer {token}"})
        answer = asking.getresponse()
        told = answer.read()
    finally:
        asking.close()
    if answer.status != 201:
        raise RuntimeError(f"a start was answered {answer.status}: {told.decode()}")
    return told


def _load(bench: Bench, server: Auth | Signing, tokens: Sequence[str]) -> Callable[[], Report]:
    targets = [Target(_PATH, header=f"Authorization: Bearer {token}") for token in tokens]
    headers = [f"{name}: {value}" for name, value in _TOLD.items()]
    load = bench.posts(server, server.unix, targets, headers=headers, connections=MORE * bench.connections, status=201)
    load.run()  # whatever is made at first
    return load.run
