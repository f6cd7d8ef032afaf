"""Families of refresh tokens: rotation, the retry of who lost an answer, and that what is stored opens nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.access import refresh
from streamgate.access.refresh import Family, Rotation
from streamgate.errors import StreamGateError

NOW = 1_800_000_000
ID = bytes(range(16))
LIFE = 30 * 86_400
KEY = b"k" * 32


def secret(number: int) -> bytes:
    return refresh.secret(KEY, ID, bytes([number]) * 24)


def use(family: Family, token: str, number: int, now: float) -> Rotation:
    given_id, presented = refresh.parse(token, KEY)
    assert given_id == family.id
    return refresh.rotate(family, presented, fresh=secret(number), now=now)


@pytest.fixture
def begun() -> tuple[Family, str]:
    return refresh.begin("ada", id=ID, secret=secret(1), now=NOW, life=LIFE)


def test_each_use_gives_another(begun: tuple[Family, str]) -> None:
    family, token = begun
    seen = [token]
    for number in range(2, 6):
        turned = use(family, token, number, NOW + 600 * number)
        assert turned.outcome == "rotated"
        family, token = turned.family, turned.token
        seen.append(token)
    assert len(set(seen)) == 5
    assert (family.account, family.id, family.started, family.expires) == ("ada", ID, NOW, NOW + LIFE)


def test_a_retry_gets_the_same_successor_for_ten_seconds(begun: tuple[Family, str]) -> None:
    family, token = begun
    first = use(family, token, 2, NOW + 5)
    for later in (5, 6, 15):
        again = use(first.family, token, 3, NOW + later)
        assert (again.outcome, again.token, again.family) == ("repeated", first.token, first.family)
    assert use(first.family, token, 3, NOW + 15.1).outcome == "reused"


def test_reuse_ends_the_family(begun: tuple[Family, str]) -> None:
    family, token = begun
    first = use(family, token, 2, NOW)
    second = use(first.family, first.token, 3, NOW + 1)
    # Though it is young: its successor was used already, so both cannot be of one client.
    stolen = use(second.family, token, 4, NOW + 2)
    assert (stolen.outcome, stolen.token, stolen.family.ended) == ("reused", "", True)
    for each in (token, first.token, second.token):
        assert use(stolen.family, each, 5, NOW + 3).outcome == "ended"


def test_who_knows_the_id_alone_has_no_say(begun: tuple[Family, str]) -> None:
    family, token = begun
    _, good = refresh.parse(token, KEY)
    for made in (bytes([1]) * 32, good[:-1] + bytes([good[-1] ^ 1]), refresh.secret(b"other", ID, bytes(24))):
        forged = refresh.begin("ada", id=ID, secret=made, now=NOW, life=LIFE)[1]
        with pytest.raises(StreamGateError, match="refresh_invalid"):
            refresh.parse(forged, KEY)
    # One that was made here and never given out would be a used one.
    assert refresh.rotate(family, secret(9), fresh=secret(2), now=NOW).outcome == "reused"


def test_a_family_ends_at_its_time(begun: tuple[Family, str]) -> None:
    family, token = begun
    assert use(family, token, 2, NOW + LIFE - 1).outcome == "rotated"
    assert use(family, token, 2, NOW + LIFE) == Rotation(family, "ended")
    turned = use(family, token, 2, NOW + LIFE - 1)
    assert turned.family.expires == family.expires, "rotation does not make it longer"
    assert use(refresh.end(turned.family), turned.token, 3, NOW).outcome == "ended"


def test_a_clock_that_went_back_repeats_nothing(begun: tuple[Family, str]) -> None:
    family, token = begun
    first = use(family, token, 2, NOW + 50)
    assert use(first.family, token, 3, NOW + 49).outcome == "reused"


def test_what_is_stored_opens_nothing(begun: tuple[Family, str]) -> None:
    family, token = begun
    first = use(family, token, 2, NOW)
    row = first.family.encode()
    for known in (secret(1), secret(2)):
        assert known.hex().encode() not in row
    for each in (token, first.token):
        assert each.encode() not in row and each not in repr(first) and each not in repr(first.family)
    assert first.family.sealed not in (secret(1), secret(2)) and refresh.end(first.family).sealed == b""


def test_rows(begun: tuple[Family, str]) -> None:
    family, token = begun
    for each in (family, use(family, token, 2, NOW + 0.25).family, refresh.end(family)):
        assert Family.decode(each.encode()) == each
    for wrong in (
        b"",
        b"[]",
        b"{}",
        b"5",
        family.encode().replace(b'"id"', b'"ID"'),
        family.encode().replace(b'"current": "', b'"current": "x'),
    ):
        with pytest.raises(ValueError, match=r"."):
            Family.decode(wrong)


@pytest.mark.parametrize(
    "wrong", ["", "x", "A" * 63, "A" * 65, "A" * 63 + "=", "A" * 63 + "é", "A" * 63 + "+", "A" * 63 + "\n"]
)
def test_what_is_no_token(wrong: str) -> None:
    with pytest.raises(StreamGateError) as caught:
        refresh.parse(wrong, KEY)
    assert caught.value.code == "refresh_invalid"


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 25)), max_size=30))
def test_whatever_comes_at_most_one_token_is_good(steps: list[tuple[int, int]]) -> None:
    """Any of the tokens ever given, at any pace: one that was replaced gets its successor or ends all, never another."""
    family, token = refresh.begin("ada", id=ID, secret=secret(200), now=NOW, life=LIFE)
    given_out, successor, now, number = [token], dict[str, str](), NOW, 0
    for which, pause in steps:
        now, number = now + pause, number + 1
        used = given_out[min(which, len(given_out) - 1)]
        was_last = used == given_out[-1]
        turned = use(family, used, number, now)
        if family.ended:
            assert turned.outcome == "ended"
        elif was_last:
            assert turned.outcome == "rotated"
            given_out.append(turned.token)
            successor[used] = turned.token
        elif turned.outcome == "repeated":
            assert turned.token == successor[used] == given_out[-1] and turned.family == family
        else:
            assert turned.outcome == "reused" and turned.family == replace(family, ended=True, sealed=b"")
        family = turned.family
