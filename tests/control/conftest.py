"""One control process for tests that leave nothing behind, and more where one is asked for."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamgate.access.accounts import hash_password
from tests.control.auth_process import AuthProcess, Viewer, make_assets

PASSWORD = "correct horse"
ASSETS = {
    "film": '[policy]\nkind = "public"',
    "open": "",
    "few": '[policy]\nkind = "allow"\nmax_streams = 3',
    "members": '[policy]\nkind = "allow"\naccounts = ["ada", "bob"]',
    "anyone": '[policy]\nkind = "allow"',
    "newest": '[policy]\nkind = "allow"\nmax_streams = 2\nwhen_full = "end_oldest"',
    "home": '[policy]\nkind = "public"\nbinding = "network"\nmax_networks = 0',
    "provider": '[policy]\nkind = "public"\nbinding = "asn"\nmax_networks = 0',
    "single": '[policy]\nkind = "public"\nmax_streams = 1',
    "embedded": '[policy]\nkind = "public"\nembed_origins = ["https://shop.example"]',
    "closed": "gated = true",
    "broken": '[policy]\nkind = "whatever"',
}
QUICK = {"starts_per_account": 6000, "renewals_per_session": 6000, "logins_per_address": 6000, "max_streams": 0}
"""Limits that no test reaches by chance."""

MakeAuth = Callable[..., AuthProcess]


@pytest.fixture(scope="session")
def hashed() -> str:
    """The hash of PASSWORD: it takes a while."""
    return str(hash_password(PASSWORD, secrets.token_bytes(16)))


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory, hashed: str) -> Path:
    """A folder with one asset of each kind of policy."""
    word = f'[policy]\nkind = "password"\npassword = "{hashed}"'
    of_word = {
        "word": "",
        "single-word": "max_streams = 1",
        "season-1": 'collection = "season"',
        "season-2": 'collection = "season"\nsession = 100',
        "other-1": 'collection = "other"',
    }
    words = {name: f"{word}\n{more}" for name, more in of_word.items()}
    return make_assets(tmp_path_factory.mktemp("assets"), **ASSETS, **words)


@pytest.fixture(scope="session")
def accounts(tmp_path_factory: pytest.TempPathFactory, hashed: str) -> Path:
    """A file of accounts, all with PASSWORD."""
    path = tmp_path_factory.mktemp("accounts") / "accounts.toml"
    path.touch(0o600)
    path.write_text("[accounts]\n" + "".join(f'{name} = "{hashed}"\n' for name in ("ada", "bob", "eve")))
    return path


def _make(assets: Path, accounts: Path, data: Path, settings: dict[str, Any]) -> AuthProcess:
    auth = {**QUICK, "accounts": str(accounts), **settings.pop("auth", {})}
    return AuthProcess(assets, data, auth=auth, **settings)


@pytest.fixture
def make_auth(assets: Path, accounts: Path, tmp_path: Path) -> Iterator[MakeAuth]:
    """Starts processes of one's own; ``data``: the name of a folder; settings by section."""
    made: list[AuthProcess] = []

    def make(data: str = "data", **settings: Any) -> AuthProcess:
        made.append(_make(assets, accounts, tmp_path / data, settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="package")
def auth(assets: Path, accounts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthProcess]:
    """One for all."""
    made = _make(assets, accounts, tmp_path_factory.mktemp("auth"), {})
    yield made
    made.close()


@pytest.fixture
def sign_in(auth: AuthProcess) -> Callable[[str], Viewer]:
    """A viewer who is signed in."""

    def sign(name: str) -> Viewer:
        answer = auth.request("POST", "/api/v1/auth/login", {"account": name, "password": PASSWORD})
        assert answer.status == 200, answer.body
        return Viewer(access=answer.json["access_token"])

    return sign
