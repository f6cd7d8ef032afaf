"""The settings of Redis: what an address may be, what is not printed, and what the documentation says of the user."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from streamgate.core.config import load, render_toml
from streamgate.core.settings import RedisSettings
from streamgate.errors import StreamGateError
from tests.conftest import ROOT
from tests.services.redis import User


@pytest.mark.parametrize(
    "url",
    ["", "redis://h", "redis://127.0.0.1:6379/3", "rediss://[::1]:1", "redis://a:1,b:2,c", "unix:///run/user@1/redis"],
)
def test_addresses(url: str) -> None:
    assert RedisSettings(url=url).url == url


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("h:6379", "begins with"),
        ("http://h", "begins with"),
        ("redis://", "begins with"),
        ("redis://me:hunter2@h", "redis.username"),
        ("redis://:hunter2@h/0", "redis.username"),
        ("redis://h?password=hunter2", "options"),
        ("redis://h:70000", "65535"),
        ("redis://h:x", "port"),
        ("redis://h:0", "HOST:PORT"),
        ("redis://a:1,", "HOST:PORT"),
        ("redis://:1", "HOST:PORT"),
    ],
)
def test_what_is_no_address(monkeypatch: pytest.MonkeyPatch, url: str, told: str) -> None:
    """It is said, and a password that stood in it is not."""
    with pytest.raises(ValidationError):
        RedisSettings(url=url)
    monkeypatch.setenv("STREAMGATE__REDIS__URL", url)
    with pytest.raises(StreamGateError) as caught:
        load()
    assert caught.value.code == "config_invalid" and caught.value.detail.startswith("redis.url: ")
    assert told.lower() in caught.value.detail.lower() and "hunter2" not in caught.value.detail


def test_the_password_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMGATE__REDIS__PASSWORD", "hunter2")
    settings = load()
    assert settings.redis.password.get_secret_value() == "hunter2"
    assert "hunter2" not in render_toml(settings) + repr(settings) + str(settings.redis)


def test_a_call_has_time_for_its_connection() -> None:
    assert RedisSettings().connect_timeout < RedisSettings().timeout


def test_the_user_of_the_tests_is_the_documented_one() -> None:
    rules = " ".join(User(password="PASSWORD").rules)
    assert f"user {rules}\n" in (ROOT / "docs/operations/redis.md").read_text()
