"""Ten thousand tokens and ten thousand paths that somebody has tampered with: nobody gets in by any, and no worker ends.

Tokens are judged by the kernel in this process, all of them, and a part of them by a real worker; paths by a real worker, over
pipelined connections.
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Sequence

import pytest

from streamgate.access import tokens
from streamgate.access.keyring import site_key
from streamgate.access.keys import Defaults
from streamgate.errors import StreamGateError
from streamgate.native.cat import Verifier
from tests.edge.gated import KEY, assets, key_folder
from tests.edge.nodes import WAIT_S, RunningNode, node
from tests.token_factory import SESSION

MANY = 10_000
AT_ONCE = 200
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
LEAF = "main.m3u8"


def mint(asset: str = "gated") -> str:
    return tokens.mint(KEY, asset=asset, session=SESSION, expires=int(time.time()) + 1000)


def mutated(token: str, dice: random.Random) -> str:
    """Another string: characters or bits changed, pieces removed, doubled or swapped, another's end."""
    raw = bytearray(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    at = dice.randrange(len(token))
    match dice.randrange(8):
        case 0:
            return token[:at] + dice.choice(ALPHABET) + token[at + 1 :]
        case 1:
            return token[:at] + token[at + dice.randint(1, 8) :]
        case 2:
            return token[:at] + dice.choice(ALPHABET) * dice.randint(1, 900) + token[at:]
        case 3:
            other = mint("other")
            return token[:at] + other[at:]
        case 4:
            raw[at % len(raw)] ^= 1 << dice.randrange(8)
        case 5:
            first, last = sorted(dice.sample(range(len(raw)), 2))
            raw[first:last] = raw[first:last][::-1]
        case 6:
            raw = raw[: at % len(raw)]
        case _:
            raw[at % len(raw) : at % len(raw)] = dice.randbytes(dice.randint(1, 8))
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def many(dice: random.Random, count: int) -> list[str]:
    """So many that are not the token itself, nor what is somebody's good one."""
    token, other = mint(), mint("other")
    found: list[str] = []
    while len(found) < count:
        if (made := mutated(token, dice)) not in ("", token, other):
            found.append(made)
    return found


def test_tokens_and_the_kernel() -> None:
    strange = site_key(bytes(32), "here", 1, Defaults("streamgate", ("local",)))
    verifier = Verifier([KEY.verifying(), strange.verifying()])
    accepted = []
    for each in many(random.Random(1), MANY):
        try:
            verifier.read(each)
        except StreamGateError as error:
            assert error.code.startswith("token_")
        else:
            accepted.append(each)
    assert not accepted
    assert verifier.read(mint()).session == SESSION, "it judges as before"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    base = tmp_path_factory.mktemp("mutated")
    root = assets(tmp_path_factory.mktemp("films"))
    limits = {"requests_per_address": 1_000_000, "burst_per_address": 1_000_000}
    with node(
        root, base / "data", tokens={"keys": str(key_folder(base)), "without_session": True}, limits=limits
    ) as made:
        yield made


def answers(running: RunningNode, targets: Sequence[str]) -> Iterator[tuple[str, int, bytes]]:
    """What each target is answered, in order; AT_ONCE of them at a time on a connection that goes on while it may."""
    left, most = list(targets), AT_ONCE
    while left:
        batch = left[:most]
        sent = "".join(f"GET {each} HTTP/1.1\r\nHost: x\r\n\r\n" for each in batch)
        got = 0
        with socket.create_connection(("127.0.0.1", running.port), timeout=WAIT_S) as connection:
            connection.sendall(sent.encode("latin-1"))
            connection.shutdown(socket.SHUT_WR)
            # What is no HTTP ends the connection, and what was sent behind it has it reset.
            with connection.makefile("rb") as file, contextlib.suppress(ConnectionResetError):
                while got < len(batch) and (line := file.readline()):
                    head = {}
                    while (field := file.readline()) not in (b"\r\n", b""):
                        name, _, value = field.partition(b":")
                        head[name.lower()] = value.strip()
                    body = file.read(int(head.get(b"content-length", b"0")))
                    yield batch[got], int(line.split()[1]), body
                    got += 1
        assert got or most > 1, f"no answer to {batch[0]!r}"
        most = AT_ONCE if got else 1
        left = left[got:]


def judged(running: RunningNode, targets: Sequence[str]) -> dict[int, int]:
    """How many had which status; whoever is let in is told by its target."""
    workers = sorted(running.workers())
    playlist = running.get(f"/t/{mint()}/v/gated/{LEAF}")[2]
    assert playlist.startswith(b"#EXTM3U")
    counted: dict[int, int] = {}
    for target, status, body in answers(running, targets):
        counted[status] = counted.get(status, 0) + 1
        assert status >= 400 and not body.startswith(b"#EXTM3U"), (target, status)
        assert status < 500, (target, status, body)
    assert sum(counted.values()) == len(targets)
    assert sorted(running.workers()) == workers, "a worker has ended"
    assert running.get(f"/t/{mint()}/v/gated/{LEAF}")[0] == 200
    return counted


@pytest.mark.slow
def test_tokens_and_a_worker(running: RunningNode) -> None:
    dice = random.Random(2)
    made = many(dice, 1000)
    counted = judged(running, [f"/t/{each}/v/gated/{LEAF}" for each in made])
    assert set(counted) <= {400, 401, 403, 431, 414}


PIECES = ["..", ".", "%2e%2e", "%2E.", ".%2e", "%2F", "%2f..", "//", ";", ";x=1", "%5c", "\\", "%00", "%", "%zz", "t", "v", "%74", "~", "~preview",
          "gated", "GATED", "gated.", "gated%20", "free", "g%61ted", "?", "#", "main.m3u8", "%25", "%252e%252e", "\xff", "+", ":", "@", "*"]  # fmt: skip


@pytest.mark.slow
def test_paths_and_a_worker(running: RunningNode) -> None:
    """Without a token, with one of another asset, with two, and with one where it does not belong: the gated film is nobody's.

    All are ways to it, each broken somewhere: what is left as it was is another's, or the open film's, and is not asked for.
    """
    dice = random.Random(3)
    other = mint("other")
    good = {f"/v/gated/{LEAF}", f"/t/{other}/v/gated/{LEAF}"}
    targets: list[str] = []
    while len(targets) < MANY:
        pieces = dice.choice(
            [["v", "gated", LEAF], ["t", other, "v", "gated", LEAF], ["t", other, "t", mint(), "v", "gated", LEAF]]
        )
        for _ in range(dice.randint(1, 3)):
            at = dice.randrange(len(pieces) + 1)
            pieces[at : at + dice.randint(0, 1)] = [dice.choice(PIECES)]
        target = dice.choice(["/", "/", "/", "//", ""]) + dice.choice(["/", "/", "/", "//", "/./"]).join(pieces)
        if target.startswith("/") and target not in good and opens_nothing_open(target):
            targets.append(target)
    counted = judged(running, targets)
    assert counted.get(400, 0) > MANY / 10 and counted.get(401, 0) > MANY / 100


def opens_nothing_open(target: str) -> bool:
    """Whether the asset that a path names, however it is read, may be the gated one and is not the open one, nor our pages."""
    path = re.split("[?#]", target)[0]
    return "free" not in path and "gated" in path.lower().replace("%61", "a")
