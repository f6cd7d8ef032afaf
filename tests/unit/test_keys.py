"""The keyring: what is derived from the root, generations and their files, which key signs, and the command line."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from streamgate.access import keyring, tokens
from streamgate.access.keyring import Generations, Ring
from streamgate.access.keys import AnyKey, Defaults, SharedKey
from streamgate.access.keys import write as key_file
from streamgate.cli import main
from streamgate.core.settings import RedisSettings, ServerSettings, Settings, TokenSettings
from streamgate.errors import StreamGateError
from streamgate.native.cat import Verifier
from streamgate.storage import generations, keys
from tests.token_factory import SECRET

ROOT = bytes(range(32))
DEFAULTS = Defaults("streamgate", ("here",))


def refused(call: object, *arguments: object) -> str:
    with pytest.raises(StreamGateError) as caught:
        call(*arguments)  # type: ignore[operator]
    return caught.value.code


class TestDerived:
    def test_it_is_hkdf(self) -> None:
        told = HKDF(SHA256(), 32, b"streamgate keyring 1", b"site\0here\x003").derive(ROOT)
        assert keyring.site_key(ROOT, "here", 3, DEFAULTS).secret == told

    def test_all_differ(self) -> None:
        made = [
            keyring.site_key(ROOT, site, number, DEFAULTS).secret for site in ("a", "b", "a.1") for number in (1, 2, 11)
        ]
        made += [keyring.access_signer(ROOT, site, number).seed for site in ("a", "b") for number in (0, 1)]
        made += [keyring.subject_secret(ROOT), keyring.site_key(bytes(32), "a", 1, DEFAULTS).secret, ROOT]
        assert len(set(made)) == len(made)

    def test_a_key_names_site_and_generation(self) -> None:
        key = keyring.site_key(ROOT, "eu.1", 12, DEFAULTS)
        assert (key.kid, key.audience, key.leased) == (b"eu.1.12", ("eu.1",), True)
        assert keyring.parse_kid("eu.1.12") == ("eu.1", 12)
        for text in ("site", "site.", "site.0", "site.01", ".1", "a/b.1", "a.1 "):
            assert keyring.parse_kid(text) is None

    @pytest.mark.parametrize("site", ["", "a/b", "..", "a b", "x" * 65, "ä"])
    def test_a_site_is_the_name_of_a_file(self, site: str) -> None:
        assert refused(keyring.site_key, ROOT, site, 1, DEFAULTS) == "config_invalid"

    def test_no_repr_shows_a_secret(self) -> None:
        ring = Ring(ROOT, {"here": Generations(1, 1, (1,))})
        for shown in (ring, keyring.site_key(ROOT, "here", 1, DEFAULTS), keyring.access_signer(ROOT, "here", 1)):
            for secret in (
                ROOT,
                keyring.site_key(ROOT, "here", 1, DEFAULTS).secret,
                keyring.access_signer(ROOT, "here", 1).seed,
            ):
                assert secret.hex() not in repr(shown) and repr(secret) not in repr(shown)

    def test_who_signs_access_tokens_comes_last(self) -> None:
        ring = Ring(ROOT, {"here": Generations(3, 2, (1, 2, 3))})
        assert [signer.kid for signer in keyring.access_signers(ring, "here")] == [
            "at.here.1",
            "at.here.3",
            "at.here.2",
        ]
        assert [signer.kid for signer in keyring.access_signers(ring, "there")] == ["at.there.0"]


class TestGenerations:
    def test_a_number_is_never_used_twice(self) -> None:
        held = Generations().new().sign(1).new()
        assert (held.made, held.current, held.verifying) == (2, 1, (1, 2))
        assert held.retire(2).new().verifying == (1, 3)

    def test_what_signs_is_not_retired(self) -> None:
        held = Generations().new().sign(1)
        for number in (1, 2):
            assert refused(held.retire, number) == "config_invalid"
        assert refused(held.sign, 2) == "config_invalid"

    def test_they_are_read_as_they_were_written(self) -> None:
        sites = {"a": Generations(3, 2, (1, 2)), "b.1": Generations(1, 0, (1,))}
        assert keyring.read_generations(keyring.write_generations(sites)) == sites

    @pytest.mark.parametrize(
        "text",
        ["", "[]", "{", '{"a": 1}', '{"a": {"made": 1}}', '{"a/": {"made": 1, "current": 1, "verifying": [1]}}',
         '{"a": {"made": 1, "current": 2, "verifying": [1]}}', '{"a": {"made": 1, "current": 1, "verifying": [2]}}',
         '{"a": {"made": true, "current": 0, "verifying": []}}', '{"a": {"made": 1, "current": 0, "verifying": "1"}}'],
    )  # fmt: skip
    def test_what_is_none(self, text: str) -> None:
        with pytest.raises(ValueError, match="."):
            keyring.read_generations(text)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(server=ServerSettings(data=str(tmp_path / "data")), tokens=TokenSettings(site="here", revalidate=0))


def kids(found: list[AnyKey]) -> list[str]:
    return [key.kid.decode() for key in found]


class TestFiles:
    def test_with_none_configured_one_is_made_and_kept(self, settings: Settings) -> None:
        ring = keys.ring(settings)
        assert ring == keys.ring(settings) and ring.of("here") == Generations(1, 1, (1,))
        [key] = keys.configured(settings)
        assert key == keyring.site_key(ring.root, "here", 1, Defaults("streamgate", ("here",)))
        folder = settings.server.data_folder / "keys"
        assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in folder.iterdir())

    def test_rotation_overlaps(self, settings: Settings) -> None:
        workshop = keys.workshop(settings)
        first = keys.signer(settings, keys.configured(settings))
        old = tokens.mint(first, asset="film", session=bytes(16), expires=2**40)
        assert workshop.new() == "here.2"
        known = keys.configured(settings)
        assert kids(known) == ["here.1", "here.2"]
        assert keys.signer(settings, known) == keys.signer(settings, known, keys.ring(settings)) == first, "seen first"
        workshop.sign("here.2")
        signer = keys.signer(settings, keys.configured(settings))
        assert signer.kid == b"here.2"
        new = tokens.mint(signer, asset="film", session=bytes(16), expires=2**40)
        both = Verifier([key.verifying() for key in keys.configured(settings)])
        assert {both.read(token).kid for token in (old, new)} == {b"here.1", b"here.2"}
        keys.retire(settings, "here.1")
        both.configure([key.verifying() for key in keys.configured(settings)])
        assert refused(both.read, old) == "token_key" and both.read(new).kid == b"here.2"
        assert keys.ring(settings).of("here") == Generations(2, 2, (2,))

    def test_ten_come_after_nine(self, settings: Settings) -> None:
        keys.configured(settings)
        for number in range(2, 12):
            keys.workshop(settings).sign(keys.workshop(settings).new())
            assert keys.signer(settings, keys.configured(settings)).kid == b"here.%d" % number

    def test_what_signs_and_what_there_is_not_is_not_retired(self, settings: Settings) -> None:
        keys.configured(settings)
        for kid in ("here.1", "here.2", "../root", "root", ""):
            assert refused(keys.retire, settings, kid) == "config_invalid"
        assert kids(keys.configured(settings)) == ["here.1"]

    def test_a_folder_with_a_key_of_another_kind_works_on_and_can_be_rotated(self, settings: Settings) -> None:
        folder = settings.server.data_folder / "keys"
        folder.mkdir(parents=True)
        (folder / "site.toml").touch(0o600)
        (folder / "site.toml").write_text(key_file("site-1", ROOT))
        ring = keys.ring(settings)
        assert len(ring.root) == 32 and ring.sites == {}
        assert kids(keys.configured(settings)) == ["site-1"]
        assert keys.signer(settings, keys.configured(settings), ring).kid == b"site-1"
        keys.workshop(settings).sign(keys.workshop(settings).new())
        assert keys.signer(settings, keys.configured(settings)).kid == b"here.1"
        keys.retire(settings, "site-1")
        assert kids(keys.configured(settings)) == ["here.1"]

    def test_keys_of_others_never_sign(self, settings: Settings) -> None:
        keys.configured(settings)
        path = settings.server.data_folder / "keys/zzz.toml"
        path.touch(0o600)
        path.write_text(key_file("shop-1", bytes(32)) + 'issuer = "shop"\n')
        known = keys.configured(settings)
        assert [(key.kid, key.leased) for key in known] == [(b"here.1", True), (b"shop-1", False)]
        assert keys.signer(settings, known).kid == b"here.1"
        assert refused(keys.signer, settings, known[1:]) == "config_invalid"

    def test_a_root_elsewhere(self, tmp_path: Path) -> None:
        root = tmp_path / "secret/root"
        told = Settings(
            server=ServerSettings(data=str(tmp_path / "data")), tokens=TokenSettings(site="here", root=str(root))
        )
        keys.configured(told)
        assert keys.ring(told).root.hex() == root.read_text().strip()
        assert not (tmp_path / "data/keys/root").exists()

    def test_no_second_root_is_made(self, settings: Settings) -> None:
        keys.configured(settings)
        root = settings.server.data_folder / "keys/root"
        was = root.read_text()
        root.unlink()
        for call in (lambda: keys.ring(settings), keys.workshop(settings).new):
            with pytest.raises(StreamGateError, match="tokens.root") as caught:
                call()
            assert caught.value.code == "config_invalid" and not root.exists()
        root.touch(0o600)
        root.write_text(was)
        assert keys.workshop(settings).new() == "here.2"

    def test_whose_root_others_should_have(self, settings: Settings) -> None:
        shared = RedisSettings(url="redis://127.0.0.1")
        assert not keys.root_of_its_own(settings)
        assert keys.root_of_its_own(settings.model_copy(update={"redis": shared}))
        told = TokenSettings(site="here", root="/run/root")
        assert not keys.root_of_its_own(settings.model_copy(update={"redis": shared, "tokens": told}))

    @pytest.mark.parametrize("leaked", ["others may read it", "it holds no key"])
    def test_a_key_is_retired_whatever_is_wrong(self, settings: Settings, leaked: str) -> None:
        keys.configured(settings)
        keys.workshop(settings).sign(keys.workshop(settings).new())
        folder = settings.server.data_folder / "keys"
        (folder / "shop.toml").write_text("kid = ")
        if leaked == "it holds no key":
            (folder / "here.1.toml").write_text("")
        for path in folder.glob("*.toml"):
            path.chmod(0o644)
        assert refused(keys.retire, settings, "here.2") == "config_invalid", "it signs"
        keys.retire(settings, "here.1")
        keys.retire(settings, "shop")
        assert [path.name for path in folder.glob("*.toml")] == ["here.2.toml"]
        assert generations.read(folder)["here"] == Generations(2, 2, (2,))
        (folder / "here.2.toml").write_text("")
        assert refused(keys.retire, settings, "here.2") == "config_invalid", "it would sign"

    def test_a_root_that_cannot_be(self, settings: Settings) -> None:
        ring = keys.ring(settings)
        root = settings.server.data_folder / "keys/root"
        root.chmod(0o640)
        assert refused(keys.ring, settings) == "config_invalid"
        root.chmod(0o600)
        for text in ("", "zz", ring.root.hex()[:62], SECRET.hex()):
            root.write_text(text)
            with pytest.raises(StreamGateError) as caught:
                keys.ring(settings)
            assert caught.value.code == "config_invalid" and not (text and text in caught.value.detail)

    def test_a_state_that_cannot_be_read(self, settings: Settings) -> None:
        known = keys.configured(settings)
        (settings.server.data_folder / "keys" / generations.STATE).write_text("{")
        assert refused(keys.ring, settings) == refused(keys.signer, settings, known) == "config_invalid"
        assert kids(keys.configured(settings)) == ["here.1"], "which verifies all the same"

    def test_a_crash_uses_a_number_up(self, settings: Settings) -> None:
        keys.configured(settings)
        folder = settings.server.data_folder / "keys"
        before = (folder / generations.STATE).read_text()
        keys.workshop(settings).new()
        (folder / generations.STATE).write_text(before)
        assert keys.workshop(settings).new() == "here.3"

    def test_a_look_sees_that_another_signs(self, settings: Settings) -> None:
        keys.configured(settings)
        folder = keys.Folder(*keys.place(settings))
        first = folder.look()
        assert first is not None and kids(first.keys) == ["here.1"]
        kid = keys.workshop(settings).new()
        second = folder.look()
        assert second is not None and kids(second.keys) == ["here.1", kid]
        assert folder.look() is None
        keys.workshop(settings).sign(kid)
        third = folder.look()
        assert third is not None and third.keys == second.keys


class TestCommands:
    @pytest.fixture
    def config(self, tmp_path: Path) -> Path:
        path = tmp_path / "streamgate.toml"
        path.write_text(f'[server]\ndata = "{tmp_path}/data"\n[tokens]\nsite = "here"\nrevalidate = 0\n')
        return path

    def run(self, config: Path, *arguments: str, status: int = 0) -> str:
        done = CliRunner().invoke(main, ["keys", *arguments, "--config", str(config)])
        assert done.exit_code == status, done.output
        return done.output

    def test_new_list_and_retire(self, config: Path, tmp_path: Path) -> None:
        assert self.run(config, "new") == "here.1 signs\n"
        assert self.run(config, "new", "--prepare") == "here.2 verifies\n"
        told = json.loads(self.run(config, "list", "--json"))
        assert [(row["kid"], row["use"]) for row in told] == [("here.1", "signs"), ("here.2", "verifies")]
        assert "make a new one first" in self.run(config, "retire", "here.1", status=1)
        assert self.run(config, "sign", "here.2") == "here.2 signs\n"
        assert self.run(config, "retire", "here.1") == "here.1 is retired\n"
        assert self.run(config, "list").split() == ["here.2", "HS256", "signs", "streamgate"]
        assert os.listdir(tmp_path / "data/keys").count("here.1.toml") == 0

    def test_nothing_secret_is_printed(self, config: Path, tmp_path: Path) -> None:
        said = self.run(config, "new") + self.run(config, "list") + self.run(config, "list", "--json")
        said += CliRunner().invoke(main, ["config", "--config", str(config)]).output
        [key] = keys.load(tmp_path / "data/keys", DEFAULTS)
        assert isinstance(key, SharedKey)
        assert key.secret.hex() not in said and (tmp_path / "data/keys/root").read_text().strip() not in said

    def test_what_there_is_not(self, config: Path) -> None:
        self.run(config, "new")
        for arguments in (("retire", "there.1"), ("sign", "here.2"), ("sign", "there.1"), ("sign", "x")):
            assert "[config_invalid]" in self.run(config, *arguments, status=1)
