"""Policies in asset.toml: what they may say, whom they let in, and that what is wrong lets nobody in."""

from __future__ import annotations

from typing import Any

import pytest

from streamgate.access import policies
from streamgate.access.accounts import PasswordHash, hash_password, parse_hash
from streamgate.access.policies import OPERATORS, Decision, Policy, decide
from streamgate.errors import CODES, StreamGateError
from streamgate.storage import description

CHEAP = PasswordHash(1024, 1, 1, bytes(16), bytes(32))
SOURCE = '[[source]]\nfile = "a.mp4"\n'


@pytest.fixture(scope="module")
def sesame() -> PasswordHash:
    return hash_password("sesame", bytes(16))


def parsed(table: dict[str, Any]) -> Policy:
    return policies.parse(table)


def test_all_that_it_may_say() -> None:
    policy = parsed(
        {
            "kind": "allow", "accounts": ["ada", "bob"], "session": 600, "max_streams": 1, "when_full": "end_oldest",
            "max_networks": 0, "binding": "network", "embed_origins": ["https://example.com", "https://*.example.org:8443"],
            "preview": 30, "collection": "season-1",
        }
    )  # fmt: skip
    assert policy == Policy(
        "allow", frozenset(("ada", "bob")), None, 600, 1, "end_oldest", 0, "network",
        ("https://example.com", "https://*.example.org:8443"), 30.0, "season-1",
    )  # fmt: skip
    assert parsed({"kind": "public"}) == Policy("public")
    assert parsed({"kind": "password", "password": str(CHEAP)}).password == CHEAP


@pytest.mark.parametrize(
    "table",
    [
        {}, {"kind": "all"}, {"kind": ["public"]}, {"kind": None}, {"kind": "public", "colour": 1},
        {"kind": "public", "accounts": []}, {"kind": "allow", "accounts": "ada"}, {"kind": "allow", "accounts": ["a b"]},
        {"kind": "allow", "accounts": [1]}, {"kind": "allow", "password": str(CHEAP)}, {"kind": "password"},
        {"kind": "password", "password": "sesame"}, {"kind": "password", "password": 5},
        {"kind": "public", "session": 0}, {"kind": "public", "session": True}, {"kind": "public", "session": 1.5},
        {"kind": "public", "max_streams": -1}, {"kind": "public", "max_networks": 65}, {"kind": "public", "when_full": "wait"},
        {"kind": "public", "binding": "cookie"}, {"kind": "public", "embed_origins": "https://example.com"},
        {"kind": "public", "embed_origins": ["https://example.com/"]}, {"kind": "public", "embed_origins": ["*"]},
        {"kind": "public", "embed_origins": ["javascript:alert(1)"]}, {"kind": "public", "preview": -1},
        {"kind": "public", "preview": True}, {"kind": "public", "preview": 1e9}, {"kind": "public", "preview": float("nan")},
        {"kind": "public", "collection": "../x"}, {"kind": "public", "collection": 5},
    ],
)  # fmt: skip
def test_what_it_may_not_say(table: dict[str, Any]) -> None:
    with pytest.raises(StreamGateError) as caught:
        parsed(table)
    assert caught.value.code == "asset_description"
    assert "sesame" not in caught.value.detail


def test_public_lets_everybody_in_and_names_no_entitlement() -> None:
    for account in (None, "ada"):
        assert decide(Policy("public"), account, None) == Decision() and decide(Policy("public"), account, None).granted


def test_allow_lets_its_accounts_in() -> None:
    some, every = Policy("allow", frozenset(("ada",))), Policy("allow")
    assert decide(some, "ada", None) == Decision(("account:ada",))
    assert decide(some, "bob", None) == Decision(reason="playback_denied")
    assert decide(some, None, "ada") == Decision(reason="sign_in_required")
    assert decide(every, "bob", None).granted and not decide(every, None, None).granted
    assert not decide(Policy("allow", frozenset()), "ada", None).granted


def test_password_lets_in_who_knows_it(sesame: PasswordHash) -> None:
    policy = Policy("password", password=sesame)
    assert decide(policy, None, "sesame") == decide(policy, "ada", "sesame") == Decision()
    for given in (None, "", "Sesame", "sesame "):
        assert decide(policy, "ada", given) == Decision(reason="password_wrong")
    assert "password" not in repr(policy).partition("kind='password'")[2] and str(sesame) not in repr(policy)


def test_without_a_table_nobody_is_let_in() -> None:
    for policy in (OPERATORS, Policy("password")):
        assert decide(policy, "ada", "sesame") == Decision(reason="playback_denied")


def test_reasons_are_codes() -> None:
    for reason in ("sign_in_required", "playback_denied", "password_wrong"):
        assert CODES[reason].status in (401, 403)


class TestDescription:
    @pytest.mark.parametrize(
        ("text", "gated"),
        [
            ("", False),
            ('[policy]\nkind = "public"\n', False),
            ('gated = true\n[policy]\nkind = "public"\n', True),
            ('[policy]\nkind = "allow"\n', True),
            ('gated = false\n[policy]\nkind = "allow"\n', True),
            (f'[policy]\nkind = "password"\npassword = "{CHEAP}"\n', True),
        ],
    )
    def test_a_policy_gates(self, text: str, gated: bool) -> None:
        data = (text + SOURCE).encode()
        assert description.gated(data) is gated
        assert description.parse(data).gated is gated
        assert (description.policy(data) is None) == ("policy" not in text) == (description.parse(data).policy is None)

    @pytest.mark.parametrize("text", ['policy = "public"\n', "policy = [1]\n", "[policy]\n", '[policy]\nkind = "publik"\n',
                                      '[policy]\nkind = "public"\nsesion = 5\n'])  # fmt: skip
    def test_a_policy_that_is_wrong_gates(self, text: str) -> None:
        data = (text + SOURCE).encode()
        assert description.gated(data)
        for read in (description.policy, description.parse):
            with pytest.raises(StreamGateError) as caught:
                read(data)
            assert caught.value.code == "asset_description"

    def test_a_policy_is_told_whatever_else_is_wrong(self) -> None:
        found = description.policy(b'title = 5\n[policy]\nkind = "allow"\n')
        assert found == Policy("allow")


def test_hashes_are_read_as_they_were_written(sesame: PasswordHash) -> None:
    assert parse_hash(str(sesame)) == sesame
