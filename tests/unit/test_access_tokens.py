"""Access tokens: one algorithm, one type, keys by their kid alone, strict in form; and they are no playback tokens."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from streamgate.access import access_tokens, tokens
from streamgate.access.access_tokens import AccessToken, Signer, issue, verify
from streamgate.errors import StreamGateError
from tests.token_factory import KEY, SESSION, verdict

NOW = 1_800_000_000
SIGNER, OTHER = Signer("at.here.2", bytes(range(32))), Signer("at.here.1", bytes(32))
KEYS = {SIGNER.kid: SIGNER.public, OTHER.kid: OTHER.public}


def made(signer: Signer = SIGNER, **changed: Any) -> str:
    terms: dict[str, Any] = {"issuer": "streamgate", "audience": "here", "account": "ada", "family": "f1", "id": "t1",
                             "now": NOW, "life": 600}  # fmt: skip
    return issue(signer, **{**terms, **changed})


def read(token: str, now: int = NOW) -> AccessToken:
    return verify(token, KEYS, issuer="streamgate", audience="here", now=now)


def refused(token: str, now: int = NOW) -> str:
    with pytest.raises(StreamGateError) as caught:
        read(token, now)
    assert caught.value.code == "sign_in_required"
    return caught.value.detail


def part(told: object) -> str:
    data = told if isinstance(told, bytes) else json.dumps(told).encode()
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header: object, claims: object, signer: Signer = SIGNER) -> str:
    message = f"{part(header)}.{part(claims)}"
    return f"{message}.{part(signer.sign(message.encode()))}"


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, claims = (json.loads(urlsafe_b64decode(text + "==")) for text in token.split(".")[:2])
    return header, claims


HEADER, CLAIMS = parts(made())


def test_it_says_who_it_is_for_until_it_ends() -> None:
    told = AccessToken("ada", "f1", NOW, NOW + 600, "t1")
    assert read(made()) == read(made(), NOW + 599) == told
    assert "expired" in refused(made(), NOW + 600)
    assert read(made(OTHER)) == told, "by a key of before"
    assert (HEADER["alg"], HEADER["typ"]) == ("EdDSA", "at+jwt")
    assert {"iss", "exp", "aud", "sub", "client_id", "iat", "jti"} <= CLAIMS.keys(), "RFC 9068 section 2.2"


def test_others_read_it() -> None:
    message, _, signature = made().rpartition(".")
    Ed25519PublicKey.from_public_bytes(SIGNER.public).verify(urlsafe_b64decode(signature + "=="), message.encode())


@pytest.mark.parametrize(
    "changed", [{"issuer": "shop"}, {"audience": "there"}, {"account": ""}, {"family": ""}, {"id": ""}]
)
def test_for_others(changed: dict[str, Any]) -> None:
    assert "playback" not in refused(made(**changed))


@pytest.mark.parametrize(
    "header",
    [{}, [], "x", {**HEADER, "alg": "none"}, {**HEADER, "alg": "HS256"}, {**HEADER, "alg": "ES256"}, {**HEADER, "alg": "eddsa"},
     {**HEADER, "alg": ["EdDSA"]}, {**HEADER, "typ": "JWT"}, {"alg": "EdDSA", "kid": SIGNER.kid}, {**HEADER, "kid": "x"},
     {**HEADER, "kid": None}, {**HEADER, "kid": [SIGNER.kid]}, {"alg": "EdDSA", "typ": "at+jwt"}, {**HEADER, "kid": OTHER.kid},
     {**HEADER, "crit": ["exp"]}, b'{"alg":"EdDSA","alg":"EdDSA","typ":"at+jwt","kid":"at.here.2"}', b"\xff", b"{" * 900],
)  # fmt: skip
def test_headers_that_do_not_count(header: object) -> None:
    refused(signed(header, CLAIMS))


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "sid", "jti", "iat", "exp"])
@pytest.mark.parametrize("value", [None, 5.5, True, [], {}, ["streamgate"], ""])
def test_claims_of_another_type(name: str, value: object) -> None:
    refused(signed(HEADER, {**CLAIMS, name: value}))
    refused(signed(HEADER, {key: kept for key, kept in CLAIMS.items() if key != name}))


def test_keys_in_a_token_are_never_looked_at() -> None:
    """Neither does one that brings its own key get in, nor is one of ours refused for what it says of keys."""
    thief = Signer(SIGNER.kid, bytes(reversed(range(32))))
    brought = {"kty": "OKP", "crv": "Ed25519", "x": part(thief.public)}
    for name, value in (
        ("jwk", brought),
        ("jku", "https://thief.example/keys"),
        ("x5u", "https://thief.example/"),
        ("x5c", ["AA=="]),
    ):
        assert "not made with its key" in refused(signed({**HEADER, name: value}, CLAIMS, thief))
        assert read(signed({**HEADER, name: value}, CLAIMS)).account == "ada"


def test_the_public_key_is_no_secret_of_hmac() -> None:
    message = f"{part({**HEADER, 'alg': 'HS256'})}.{part(CLAIMS)}"
    refused(f"{message}.{part(hmac.digest(SIGNER.public, message.encode(), 'sha256'))}")


def test_form() -> None:
    good = made()
    head, body, signature = good.split(".")
    for wrong in ("", ".", "..", good + ".", "." + good, f"{head}.{body}", f"{head}.{body}.", good + "=", good + "\n", f" {good}",
                  f"{head}.{body}.{signature[:-2]}", f"{head}.{body}.{signature[:-1]}{chr(ord(signature[-1]) + 1)}",
                  good.replace(".", ".\u00e9", 1), good + "A" * 2048, f"{head}.{part(b'[]')}.{signature}"):  # fmt: skip
        refused(wrong)
    assert "NaN" not in refused(signed(HEADER, b'{"exp": NaN}'))


@given(st.integers(0, len(made()) - 1), st.characters(max_codepoint=127))
def test_a_changed_token_is_refused(at: int, character: str) -> None:
    good = made()
    changed = good[:at] + character + good[at + 1 :]
    if changed != good:
        refused(changed)


@given(st.text(max_size=300))
def test_anything_else_is_refused(text: str) -> None:
    refused(text)


def test_a_playback_token_is_no_session_and_the_reverse() -> None:
    playback = tokens.mint(KEY, asset="abc123", session=SESSION, expires=NOW + 60)
    assert verdict(playback) == "accept"
    refused(playback)
    assert verdict(made()) == "token_malformed"


def test_no_secret_is_shown_or_pickled() -> None:
    assert SIGNER.seed.hex() not in repr(SIGNER) and repr(SIGNER.seed) not in repr(SIGNER)
    with pytest.raises(TypeError):
        SIGNER.__reduce__()
    assert access_tokens.SEED == len(SIGNER.seed)
