"""Making tokens, the files of keys, and ``streamgate token``."""

from __future__ import annotations

import ipaddress
import json
import os
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from streamgate.access import keys as key_files
from streamgate.access import tokens
from streamgate.access.cbor import encode
from streamgate.access.keys import Defaults
from streamgate.cli import main
from streamgate.core.config import render_toml
from streamgate.core.settings import ServerSettings, Settings, TokenSettings
from streamgate.errors import StreamGateError
from streamgate.native import cat
from streamgate.storage import keys
from streamgate.storage.generations import Workshop
from tests.token_factory import KEY, NOW, SECRET, SESSION, VECTORS, Request, verdict, verifier

DEFAULTS = Defaults("streamgate", ("site-eu-1",))
FRESH = bytes(range(100, 132))


def mint(**changed: Any) -> str:
    return tokens.mint(KEY, **{"asset": "abc123", "session": SESSION, "expires": NOW + 100, **changed})


def code(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(StreamGateError) as caught:
        call(*arguments, **named)
    return caught.value.code


class TestMint:
    def test_a_token_opens_its_asset_until_it_ends(self) -> None:
        token = mint()
        assert verdict(token) == "accept"
        for path in ("/v/abc1234/main.mpd", "/v/abc12/main.mpd", "/v/ABC123/main.mpd", "/assets.json", "/v/abc123"):
            assert verdict(token, Request(path=path)) == "token_path"
        assert verdict(token, Request(now=NOW + 129)) == "accept"
        assert verdict(token, Request(now=NOW + 130)) == "token_expired"

    def test_it_is_short_and_deterministic(self) -> None:
        assert mint() == mint()
        assert len(mint()) < 225
        assert cat.decode(mint())[3] == {
            1: "streamgate",
            3: "site-eu-1",
            4: NOW + 100,
            7: SESSION,
            310: 1,
            312: {3: {1: "/v/abc123/"}},
        }

    def test_all_it_can_say(self) -> None:
        networks = [
            ipaddress.ip_network(n) for n in ("203.0.113.0/24", "198.51.100.1/32", "2001:db8::/33", "2001:db8::7/128")
        ]
        token = mint(
            counter=b"\x00\x01",
            starts=NOW - 5,
            subject="opaque",
            methods=("GET", "HEAD"),
            networks=networks,
            renewal=tokens.Renewal(1, 300, 60),
        )
        for address, expected in (
            ("203.0.113.77", "accept"),
            ("198.51.100.1", "accept"),
            ("198.51.100.2", "token_network"),
            ("2001:db8:7fff::1", "accept"),
            ("2001:db8:8000::1", "token_network"),
        ):
            assert verdict(token, Request(address=ipaddress.ip_address(address).packed)) == expected
        assert verdict(token, Request(method="POST")) == "token_method"
        assert verdict(token, Request(now=NOW - 66)) == "token_not_yet_valid"
        read = verifier().read(token)
        assert read.session == SESSION
        told = tokens.named(cat.decode(token)[3])
        assert told["sub"] == "opaque"
        assert told["cti"] == SESSION.hex() + "0001"
        assert told["catr"] == {"0": 1, "1": 300, "2": 60}
        json.dumps(told)

    def test_renewed_tokens_are_of_one_session(self) -> None:
        judge = verifier()
        first, second = judge.read(mint()), judge.read(mint(counter=b"\x01"))
        assert first.session == second.session

    @pytest.mark.parametrize("asset", ["", "../x", "a/b", "a b", "x" * 65, "-x", "a~b", "a\n"])
    def test_only_for_an_asset(self, asset: str) -> None:
        assert code(mint, asset=asset) == "asset_not_found"

    @pytest.mark.parametrize(
        "changed",
        [{"session": b"short"}, {"counter": bytes(9)}, {"expires": -1}, {"expires": 2**53 + 1}, {"starts": NOW + 101}],
    )
    def test_what_cannot_be(self, changed: dict[str, Any]) -> None:
        assert code(mint, **changed) == "token_malformed"

    def test_too_much_for_a_token(self) -> None:
        assert code(mint, subject="x" * 900) == "token_too_long"

    def test_several_audiences_and_none(self) -> None:
        both = replace(KEY, audience=("site-us-1", "site-eu-1"))
        assert verdict(tokens.sign(both, cat_claims(both))) == "accept"
        assert "aud" not in tokens.named(cat_claims(replace(KEY, audience=())))

    @pytest.mark.parametrize(
        ("item", "made"),
        [(0, "00"), (23, "17"), (24, "1818"), (255, "18ff"), (256, "190100"), (65536, "1a00010000"), (2**32, "1b0000000100000000"),
         (2**64 - 1, "1b" + "f" * 16), (-1, "20"), (-(2**64), "3b" + "f" * 16), (1.5, "fb3ff8000000000000"), ("é", "62c3a9"),
         (b"\1", "4101"), ([1, [2]], "82018102"), ({1: "a", "b": 2}, "a2016161616202")],
    )  # fmt: skip
    def test_cbor_as_rfc_8949_appendix_a_has_it(self, item: Any, made: str) -> None:
        assert encode(item).hex() == made

    def test_what_is_no_item(self) -> None:
        with pytest.raises(TypeError):
            encode(True)
        with pytest.raises(OverflowError):
            encode(2**64)


def cat_claims(key: key_files.SharedKey) -> Any:
    return cat.decode(tokens.mint(key, asset="abc123", session=SESSION, expires=NOW + 100))[3]


def made_in(folder: Path) -> list[key_files.AnyKey]:
    """The keys of a folder in which the first one is made."""
    Workshop(folder, folder / "root", "site-eu-1", DEFAULTS).first()
    return keys.load(folder, DEFAULTS)


def only(found: list[key_files.AnyKey]) -> key_files.SharedKey:
    [key] = found
    assert isinstance(key, key_files.SharedKey)
    return key


class TestKeyFiles:
    def write(self, folder: Path, text: str, name: str = "a.toml", mode: int = 0o600) -> Path:
        path = folder / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def test_a_key_is_made_and_kept(self, tmp_path: Path) -> None:
        folder = tmp_path / "data" / "keys"
        made, again = only(made_in(folder)), only(made_in(folder))
        assert made == again
        assert len(made.secret) == 32 and made.kid == b"site-eu-1.1"
        assert {file.name for file in folder.iterdir()} == {"root", "generations.json", ".lock", "site-eu-1.1.toml"}
        assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in folder.iterdir())
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        token = tokens.mint(made, asset="abc123", session=SESSION, expires=NOW + 9)
        assert verdict(token, by=verifier(again.verifying())) == "accept"

    def test_no_two_folders_get_the_same_key(self, tmp_path: Path) -> None:
        one, other = (only(made_in(tmp_path / name)) for name in "ab")
        assert one.secret != other.secret

    def test_of_many_who_make_one_at_once_all_get_the_same(self, tmp_path: Path) -> None:
        start, found = threading.Barrier(8), []

        def make() -> None:
            start.wait()
            found.append(made_in(tmp_path / "keys"))

        threads = [threading.Thread(target=make) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8 and all(one == found[0] and len(one) == 1 for one in found)

    def test_what_a_file_may_say(self, tmp_path: Path) -> None:
        rules = 'issuer = "shop"\naudience = ["x"]\nrequire = ["exp"]\nprefixes = ["/v/shop-"]\n'
        self.write(tmp_path, key_files.write("foreign", FRESH) + rules)
        self.write(tmp_path, key_files.write("own", bytes(32)), "b.toml")
        (tmp_path / "README").write_text("no key")
        foreign, own = keys.load(tmp_path, DEFAULTS)
        assert (foreign.kid, foreign.issuer, foreign.audience, foreign.require) == (
            b"foreign",
            "shop",
            ("x",),
            ("exp",),
        )
        assert foreign.prefixes == ("/v/shop-",)
        assert (own.issuer, own.audience, own.prefixes) == ("streamgate", ("site-eu-1",), ())

    @pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o644])
    def test_a_file_that_others_may_read_is_refused(self, tmp_path: Path, mode: int) -> None:
        self.write(tmp_path, key_files.write("k", FRESH), mode=mode)
        assert code(keys.load, tmp_path, DEFAULTS) == "config_invalid"

    @pytest.mark.parametrize(
        "text",
        ["kid = ", 'kid = "x"\n', f'secret = "{FRESH.hex()}"\n', 'kid = "x"\nsecret = "zz"\n', f'kid = "x"\nsecret = "{FRESH.hex()[:62]}"\n',
         f'kid = 5\nsecret = "{FRESH.hex()}"\n', key_files.write("x", FRESH) + 'requires = ["exp"]\n',
         key_files.write("x", FRESH) + 'require = "exp"\n', key_files.write("x", FRESH) + 'require = ["expiry"]\n'],
    )  # fmt: skip
    def test_wrong_files_are_refused_without_telling_the_secret(self, tmp_path: Path, text: str) -> None:
        self.write(tmp_path, text)
        with pytest.raises(StreamGateError) as caught:
            keys.load(tmp_path, DEFAULTS)
        assert caught.value.code == "config_invalid"
        assert "a.toml" in caught.value.detail
        assert FRESH.hex()[:16] not in str(caught.value)

    def test_two_files_of_one_kid(self, tmp_path: Path) -> None:
        self.write(tmp_path, key_files.write("k", FRESH))
        self.write(tmp_path, key_files.write("k", bytes(32)), "b.toml")
        assert code(keys.load, tmp_path, DEFAULTS) == "config_invalid"

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        assert code(keys.load, tmp_path / "none", DEFAULTS) == "config_invalid"

    def test_the_published_key_is_refused(self, tmp_path: Path) -> None:
        self.write(tmp_path, key_files.write("k1", SECRET))
        assert code(keys.load, tmp_path, DEFAULTS) == "config_invalid"
        assert VECTORS["keys"]["k1"] not in Path(key_files.__file__).read_text()

    def test_no_repr_shows_a_secret(self, tmp_path: Path) -> None:
        made = only(made_in(tmp_path / "keys"))
        assert made.secret.hex() not in repr(made) and str(made.secret) not in repr(made)


class TestCommands:
    @pytest.fixture
    def config(self, tmp_path: Path) -> Path:
        path = tmp_path / "streamgate.toml"
        settings = Settings(
            server=ServerSettings(data=str(tmp_path / "data")), tokens=TokenSettings(site="here", lifetime=600)
        )
        path.write_text(render_toml(settings))
        return path

    def test_mint_and_show(self, config: Path) -> None:
        run = CliRunner()
        made = run.invoke(
            main,
            [
                "token",
                "mint",
                "film",
                "--offline",
                "--method",
                "GET",
                "--network",
                "203.0.113.0/24",
                "--config",
                str(config),
            ],
        )
        assert made.exit_code == 0, made.output
        for shown in (
            run.invoke(main, ["token", "show", made.output.strip(), "--config", str(config)]),
            run.invoke(main, ["token", "show", "--config", str(config)], input=made.output),
        ):
            told = json.loads(shown.output)
            assert told["verdict"] == "good"
            assert told["claims"]["aud"] == "here"
            assert told["claims"]["catu"] == {"3": {"1": "/v/film/"}}
            assert told["session"] == told["claims"]["cti"] and len(told["session"]) == 32

    def test_urls(self, config: Path) -> None:
        made = CliRunner().invoke(
            main, ["token", "mint", "film", "--offline", "--url", "http://edge.example/", "--config", str(config)]
        )
        hls, dash = (line.split()[1] for line in made.output.splitlines())
        assert (
            hls.startswith("http://edge.example/t/")
            and hls.endswith("/v/film/main.m3u8")
            and dash.endswith("/v/film/main.mpd")
        )

    def test_show_of_what_is_not_believed(self, config: Path) -> None:
        by_name = {vector["name"]: vector["token"] for vector in VECTORS["vectors"]}
        run = CliRunner()
        told = json.loads(run.invoke(main, ["token", "show", by_name["basic"], "--config", str(config)]).output)
        assert (told["verdict"], told["kid"], told["claims"]["iss"]) == ("token_key", "k1", "streamgate")
        broken = run.invoke(main, ["token", "show", "!!!!", "--config", str(config)])
        assert broken.exit_code == 1 and "[token_malformed]" in broken.output

    def test_wrong_usage(self, config: Path) -> None:
        run = CliRunner()
        for arguments, status in ((["--network", "nowhere"], 2), (["--lifetime", "0"], 2)):
            assert (
                run.invoke(main, ["token", "mint", "film", "--offline", *arguments, "--config", str(config)]).exit_code
                == status
            )
        assert run.invoke(main, ["token", "mint", "a/b", "--offline", "--config", str(config)]).exit_code == 1

    def test_the_signer_is_chosen_by_kid(self, tmp_path: Path) -> None:
        folder = tmp_path / "keys"
        folder.mkdir()
        for name, secret in (("a", bytes(32)), ("b", FRESH)):
            path = folder / f"{name}.toml"
            path.write_text(key_files.write(name, secret))
            path.chmod(0o600)
        for signer, kid in (("", b"b"), ("a", b"a")):
            config = tmp_path / "s.toml"
            config.write_text(f'[tokens]\nkeys = "{folder}"\nsigner = "{signer}"\n')
            made = CliRunner().invoke(main, ["token", "mint", "film", "--offline", "--config", str(config)])
            assert cat.decode(made.output.strip())[2] == {4: kid}
        config.write_text(f'[tokens]\nkeys = "{folder}"\nsigner = "c"\n')
        assert CliRunner().invoke(main, ["token", "mint", "film", "--offline", "--config", str(config)]).exit_code == 1

    def test_no_secret_in_what_the_program_shows(self, config: Path, tmp_path: Path) -> None:
        environment = {**os.environ, "STREAMGATE_CONFIG": str(config)}
        outputs = []
        for arguments in (["token", "mint", "film", "--offline"], ["config"]):
            done = subprocess.run(
                [sys.executable, "-m", "streamgate.cli", *arguments],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            outputs.append(done.stdout + done.stderr)
        [file] = (tmp_path / "data/keys").glob("*.toml")
        secret = only(keys.load(file.parent, DEFAULTS)).secret.hex()
        assert secret in file.read_text()
        assert all(secret not in output for output in outputs)


def test_an_outage_that_leases_outlive_is_told(tmp_path: Path) -> None:
    config = tmp_path / "streamgate.toml"
    config.write_text("[leases]\nduration = 20.0\nauth_outage = 600.0\n")
    told = CliRunner().invoke(main, ["config", "--config", str(config)])
    assert (told.exit_code, "may stay for up to 620 s" in told.output.splitlines()[0]) == (0, True)
    again = tmp_path / "again.toml"
    again.write_text(told.output)
    assert CliRunner().invoke(main, ["config", "--config", str(again)]).output == told.output
    assert "may stay for" not in CliRunner().invoke(main, ["config", "--default"]).output
