"""Accounts and passwords: what a file may hold, who is let in, and that nothing of a password is kept or shown."""

from __future__ import annotations

import hashlib
from base64 import b64decode

import pytest
from click.testing import CliRunner

from streamgate.access import accounts
from streamgate.access.accounts import PasswordHash, hash_password, parse, parse_hash
from streamgate.cli import main
from streamgate.errors import StreamGateError

SALT = bytes(range(16))
GOOD = "scrypt$16384$8$5$AAECAwQFBgcICQoLDA0ODw==$" + "A" * 43 + "="


@pytest.fixture(scope="module")
def ada() -> PasswordHash:
    return hash_password("a horse, a battery", SALT)


def file(**known: str) -> bytes:
    return ("[accounts]\n" + "".join(f'"{name}" = "{value}"\n' for name, value in known.items())).encode()


def test_it_is_scrypt(ada: PasswordHash) -> None:
    kind, n, r, p, salt, digest = str(ada).split("$")
    told = hashlib.scrypt(
        b"a horse, a battery", salt=b64decode(salt), n=int(n), r=int(r), p=int(p), maxmem=2**28, dklen=32
    )
    assert (kind, b64decode(salt), b64decode(digest)) == ("scrypt", SALT, told)
    # OWASP's list of 2023: 2^14, 8, 5 counts as much as 2^17, 8, 1.
    assert int(n) * int(r) * int(p) >= 2**14 * 8 * 5


def test_who_is_let_in(ada: PasswordHash) -> None:
    known = parse(file(ada=str(ada)), "accounts.toml")
    assert "ada" in known and "bob" not in known and len(known) == 1
    assert known.check("ada", "a horse, a battery")
    for name, password in (
        ("ada", "a horse"),
        ("ada", ""),
        ("bob", "a horse, a battery"),
        ("", ""),
        ("Ada", "a horse, a battery"),
    ):
        assert not known.check(name, password)


def test_for_who_there_is_not_the_same_work_is_done(ada: PasswordHash, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, int]] = []
    real = hashlib.scrypt

    def counted(password: bytes, *, salt: bytes, n: int, r: int, p: int, maxmem: int, dklen: int) -> bytes:
        asked.append((n, r, p))
        return real(password, salt=salt, n=1024, r=1, p=1, maxmem=maxmem, dklen=dklen)

    monkeypatch.setattr(hashlib, "scrypt", counted)
    known = parse(file(ada=str(ada)), "accounts.toml")
    assert not known.check("ada", "x") and not known.check("nobody", "x")
    assert asked[0] == asked[1]


def test_a_password_too_long_or_none(ada: PasswordHash) -> None:
    for call in (
        lambda: hash_password("", SALT),
        lambda: hash_password("x" * 1025, SALT),
        lambda: ada.fits("x" * 1025),
    ):
        with pytest.raises(StreamGateError) as caught:
            call()
        assert caught.value.code == "request_malformed"
    assert hash_password("ü" * 512, SALT).fits("ü" * 512)
    assert not ada.fits("\ud800"), "what is no text is a wrong password"


@pytest.mark.parametrize(
    "text",
    ["", "x", "scrypt", GOOD.replace("scrypt", "bcrypt"), GOOD.replace("16384", "16383"), GOOD.replace("16384", "512"),
     GOOD.replace("16384", "262144"), GOOD.replace("$8$", "$0$"), GOOD.replace("$8$", "$17$"), GOOD.replace("$5$", "$0$"),
     GOOD.replace("$5$", "$٥$"), GOOD.replace("$5$", "$99$"), GOOD + "=", GOOD + "\n", GOOD[:-4], GOOD.replace("AAEC", "!!!!"),
     GOOD.replace("AAECAwQFBgcICQoLDA0ODw==", "AAEC")],
)  # fmt: skip
def test_what_is_no_hash(text: str) -> None:
    with pytest.raises(ValueError, match=r"hash|bounds|base64|padding|Incorrect|Invalid|Excess"):
        parse_hash(text)


def test_what_is_a_hash() -> None:
    assert str(parse_hash(GOOD)) == GOOD


@pytest.mark.parametrize(
    "text",
    [b"\xff", b"[accounts", b"ada = 1\n", b"accounts = 5\n", b"[accounts]\n[more]\n", b"[accounts]\nada = 5\n",
     b'[accounts]\nada = "sesame"\n', b'[accounts]\n"a b" = "' + GOOD.encode() + b'"\n', b'[accounts]\n"" = "x"\n'],
)  # fmt: skip
def test_what_is_no_file_of_accounts(text: bytes) -> None:
    with pytest.raises(StreamGateError) as caught:
        parse(text, "a.toml")
    assert caught.value.code == "config_invalid" and "a.toml" in caught.value.detail
    assert "sesame" not in caught.value.detail


def test_a_file_of_none() -> None:
    assert len(parse(b"", "a.toml")) == len(parse(b"[accounts]\n", "a.toml")) == 0


def test_no_repr_shows_a_hash(ada: PasswordHash) -> None:
    assert ada.digest.hex() not in repr(ada) and repr(ada.digest) not in repr(ada)
    assert "scrypt" not in repr(parse(file(ada=str(ada)), "x"))


def test_the_command_line_hashes() -> None:
    one, other = (CliRunner().invoke(main, ["accounts", "hash"], input="sesame\n").output.strip() for _ in range(2))
    assert one != other and parse_hash(one).fits("sesame") and parse_hash(other).fits("sesame")
    assert CliRunner().invoke(main, ["accounts", "hash"], input="\n").exit_code == 1


@pytest.mark.parametrize(
    ("name", "good"), [("ada", True), ("a@b.example", True), ("A1_-+.", True), ("", False), ("-a", False), ("a" * 65, False),
                       ("ä", False), ("a\n", False), ("a/b", False)],
)  # fmt: skip
def test_names(name: str, good: bool) -> None:
    assert accounts.is_name(name) is good
