"""The table of abilities itself."""

from __future__ import annotations

import pytest

from tests.players.abilities import ABILITIES, BROWSER, PROGRAMS

CLIENTS = (*BROWSER, *PROGRAMS)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_every_no_has_a_reason(client: object) -> None:
    for ability in ABILITIES:
        value = getattr(client, ability)
        assert value is True or (isinstance(value, str) and len(value) > 20), ability


@pytest.mark.parametrize("protocol", ["hls", "dash"])
@pytest.mark.parametrize("ability", ABILITIES)
def test_every_ability_has_a_player(protocol: str, ability: str) -> None:
    assert [c.name for c in CLIENTS if c.protocol == protocol and getattr(c, ability) is True]


def test_the_names_are_unique() -> None:
    names = [client.name for client in CLIENTS]
    assert len(names) == len(set(names))
