"""Settings: one table, three sources, errors that name the setting."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic_settings import BaseSettings

from streamgate.core import settings as declared
from streamgate.core.config import PREFIX, Settings, load, render_toml, table
from streamgate.core.settings import Section, setting
from streamgate.errors import StreamGateError

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.startswith("STREAMGATE_"):
            monkeypatch.delenv(variable)


def write(folder: Path, text: str) -> Path:
    path = folder / "streamgate.toml"
    path.write_text(text, "utf-8")
    return path


def invalid(path: Path | None = None) -> str:
    with pytest.raises(StreamGateError) as caught:
        load(path)
    assert caught.value.code == "config_invalid"
    return caught.value.detail


def test_the_sample_is_the_table() -> None:
    assert (ROOT / "config" / "streamgate.toml").read_text("utf-8") == render_toml(Settings())


def test_the_sample_gives_the_defaults() -> None:
    assert load(ROOT / "config" / "streamgate.toml") == Settings() == load()


def test_every_setting_has_a_reason_and_every_number_its_limits_and_unit() -> None:
    rows = list(table())
    assert len({row.variable for row in rows}) == len(rows)
    for row in rows:
        assert row.reason.endswith("."), row
        if row.type in ("integer", "number"):
            assert row.minimum is not None and row.maximum is not None, row
            assert row.minimum <= row.default <= row.maximum, row
            assert row.unit or row.name == "port", row
        else:
            assert not row.unit


def test_later_sources_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, '[server]\nport = 1\nhost = "a"\nbacklog = 7\n[media]\ntarget = 2\n')
    monkeypatch.setenv("STREAMGATE__SERVER__PORT", "2")
    monkeypatch.setenv("STREAMGATE__SERVER__HOST", "b")
    monkeypatch.setenv("STREAMGATE__EDGE__CORS_ORIGINS", '["https://a.example", "*"]')
    found = load(path, overrides={"server": {"host": "c"}})
    assert (found.server.port, found.server.host, found.server.backlog) == (2, "c", 7)
    assert found.media.target == 2.0
    assert found.edge.cors_origins == ("https://a.example", "*")
    assert found.server.keepalive_timeout == Settings().server.keepalive_timeout
    assert type(found) is Settings
    monkeypatch.setenv("STREAMGATE_CONFIG", str(path))
    assert load().server.backlog == 7
    assert load(ROOT / "config" / "streamgate.toml").server.backlog == 1024


def test_the_constructor_does_not_read_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMGATE__SERVER__PORT", "2")
    assert Settings().server.port == 8080


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[server]\nprot = 1\n", "'server.prot'"),
        ("[server]\nprot = 1\n", "did you mean 'server.port'?"),
        ("[sever]\nport = 1\n", "did you mean 'server'?"),
        ("server = 1\n", "[server]"),
        ("port = 1\n", "there is no setting 'port'"),
        ("[server]\nport = 70000\n", "server.port: input should be less than or equal to 65535"),
        ("[server]\nport = -1\n", "server.port"),
        ('[server]\nport = "many"\n', "server.port"),
        ("[media]\ntarget = nan\n", "media.target"),
        ('[log]\nlevel = "loud"\n', "log.level"),
        ("[edge]\nthreads = 0\nblock = 1\n", "edge.block"),
        ("[server\n", "streamgate.toml"),
        ("[server]\nport = 1\nport = 2\n", "streamgate.toml"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, told: str) -> None:
    assert told in invalid(write(tmp_path, text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in invalid(tmp_path / "none.toml")
    assert "Is a directory" in invalid(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    assert "latin.toml" in invalid(tmp_path / "latin.toml")


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("STREAMGATE__SERVER__PROT", "1", "did you mean 'server.port'? "),
        ("STREAMGATE__SRVER__PORT", "1", "did you mean 'server'? "),
        ("STREAMGATE__SERVER__PORT", "x", "server.port"),
        ("STREAMGATE__EDGE__CORS_ORIGINS", "https://a.example", "STREAMGATE__EDGE__CORS_ORIGINS: write lists as JSON"),
    ],
)
def test_wrong_variables(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str) -> None:
    monkeypatch.setenv(variable, value)
    assert told.strip() in invalid()


def test_other_variables_are_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMGATE_MEDIA", "/somewhere")
    assert load() == Settings()


def test_what_is_written_is_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMGATE__SERVER__HOST", 'a "quoted" \\ name\n')
    monkeypatch.setenv("STREAMGATE__EDGE__CORS_ORIGINS", "[]")
    monkeypatch.setenv("STREAMGATE__LOG__ACCESS", "false")
    found = load()
    written = render_toml(found)
    monkeypatch.undo()
    assert tomllib.loads(written)["server"]["host"] == 'a "quoted" \\ name\n'
    assert load(write(tmp_path, written)) == found


def test_secrets_are_never_written() -> None:
    class KeySection(Section):
        """Keys."""

        key: SecretStr = setting(SecretStr("hunter2"), "A key.")

    class Keys(BaseSettings):
        keys: KeySection = KeySection()

    written = render_toml(Keys())
    assert "hunter2" not in written
    assert "# key = (secret)" in written
    assert [row.type for row in table(Keys)] == ["secret text"]


def test_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert Settings().server.data_folder == Path("/cache/streamgate")
    assert declared.ServerSettings(data="/data").data_folder == Path("/data")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/a")
    assert Settings().server.data_folder == Path("/home/a/.cache/streamgate")


def test_variables_are_named_as_documented() -> None:
    assert next(row for row in table() if row.name == "port").variable == f"{PREFIX}SERVER__PORT"
