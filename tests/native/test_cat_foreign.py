"""Tokens of others in the kernel: they count once somebody told that they are right, no longer than that, and only unrevoked."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from streamgate.access import foreign, keys
from streamgate.access.cbor import encode
from streamgate.access.foreign import Algorithm, load
from streamgate.access.keys import Defaults, PublicKey
from streamgate.access.tokens import sign
from streamgate.errors import StreamGateError
from streamgate.native.cat import Key, Verifier
from tests.signers import ORDER, Issuer, es256, ps256
from tests.token_factory import KEY, NOW, PATH, Request, raw, signed, text, verdict

FAR = 2**40
BOTH = pytest.mark.parametrize("issuer", [es256(), ps256()], ids=["ES256", "PS256"])


def judge(*issuers: Issuer, remembered: int = 100) -> Verifier:
    return Verifier([KEY.verifying(), *(issuer.key.verifying() for issuer in issuers)], remembered)


def refused(call: object, *arguments: object) -> str:
    with pytest.raises(StreamGateError) as caught:
        call(*arguments)  # type: ignore[operator]
    return caught.value.code


def right(by: Verifier, issuer: Issuer, token: str) -> bool:
    key, covered, signature, digest, _ = by.covered(token)
    assert key.kid == issuer.kid and not key.leased and digest == sha256(token.encode()).digest()
    return load(issuer.pem, issuer.algorithm).right(covered, signature)


@BOTH
def test_a_token_counts_from_when_it_is_remembered(issuer: Issuer) -> None:
    by, token = judge(issuer), issuer.token()
    assert verdict(token, by=by) == "token_signature"
    assert right(by, issuer, token)
    by.remember(token, FAR)
    assert verdict(token, by=by) == "accept"
    found = by.read(token)
    assert (found.digest, found.key.leased, found.key.algorithm) == (
        sha256(token.encode()).digest(),
        False,
        foreign.NUMBERS[issuer.algorithm],
    )


@BOTH
def test_all_but_the_signature_is_looked_at_each_time(issuer: Issuer) -> None:
    by = judge(issuer)
    for claims, code in (
        ({4: NOW - 31}, "token_expired"),
        ({5: NOW + 61}, "token_not_yet_valid"),
        ({1: "streamgate"}, "token_issuer"),
        ({3: "elsewhere"}, "token_audience"),
        ({4: None}, "token_missing_claim"),
        ({312: {3: {1: "/v/other/"}}}, "token_path"),
        ({313: ["POST"]}, "token_method"),
        ({4: float("nan")}, "token_malformed"),
    ):
        token = issuer.token(claims)  # type: ignore[arg-type]
        by.remember(token, FAR)
        assert [verdict(token, by=by) for _ in range(2)] == [code, code]


@BOTH
def test_its_time_ends_whatever_it_says(issuer: Issuer) -> None:
    by, token = judge(issuer), issuer.token({4: FAR})
    by.remember(token, NOW + 3600)
    assert by.read(token).deadline == NOW + 3600
    assert verdict(token, Request(now=NOW + 3599), by) == "accept"
    assert verdict(token, Request(now=NOW + 3600), by) == "token_expired"
    by.remember(token, NOW + 9999)
    assert by.read(token).deadline == NOW + 3600, "the first sight counts"
    short = issuer.token({4: NOW + 5})
    by.remember(short, FAR)
    assert by.read(short).deadline == NOW + 35


def ways(issuer: Issuer, token: str) -> list[str]:
    """The same token in other characters, which no issuer wrote."""
    body = raw(token)
    assert body.startswith(b"\xd8\x3d\xd2\x84")
    named = encode({4: issuer.kid})
    more = body.replace(named, encode({4: issuer.kid, 99: 1}), 1)
    found = [text(body[2:]), text(more)]
    if issuer.algorithm == "ES256":
        found.append(text(body[:-32] + (ORDER - int.from_bytes(body[-32:])).to_bytes(32)))
    return found


@BOTH
def test_other_ways_to_write_a_token_are_no_younger_and_no_less_revoked(issuer: Issuer) -> None:
    by, token = judge(issuer), issuer.token({7: None, 4: FAR})
    others = ways(issuer, token)
    by.remember(token, NOW + 60)
    for other in others:
        assert verdict(other, by=by) == "token_signature", "never seen"
        assert right(by, issuer, other)
        by.remember(other, NOW + 5000)
        assert by.read(other).deadline == NOW + 60
        assert by.read(other).session == by.read(token).session
    held = [by.read(each) for each in (token, *others)]
    by.revoke_token(sha256(token.encode()).digest(), FAR)
    assert by.revoked >= 1
    for each, found in zip((token, *others), held, strict=True):
        assert refused(by.read, each) == "token_revoked"
        with pytest.raises(StreamGateError, match="token_revoked"):
            by.check(found, path=PATH, now=NOW)
    by.restore_token(sha256(token.encode()).digest())
    assert by.read(token).session == held[0].session


def test_revoked_before_it_was_seen() -> None:
    issuer = es256()
    by, token = judge(issuer), issuer.token()
    by.revoke_token(sha256(token.encode()).digest(), NOW + 60)
    for each in (token, *ways(issuer, token)):
        by.remember(each, FAR)
        assert refused(by.read, each) == "token_revoked"
    assert by.forget(NOW + 60) == 2
    assert by.read(token).kid == b"shop-1"


def test_revoked_by_key_and_by_cti() -> None:
    by, token = judge(es256()), es256().token({7: b"theirs"})
    by.remember(token, FAR)
    for revoke, restore, what in (
        (by.revoke_kid, by.restore_kid, b"shop-1"),
        (by.revoke_session, by.restore_session, b"theirs"),
    ):
        found = by.read(token)
        revoke(what, FAR)
        assert refused(by.read, token) == "token_revoked"
        with pytest.raises(StreamGateError, match="token_revoked"):
            by.check(found, path=PATH, now=NOW)
        restore(what)
        assert by.read(token).session == b"theirs"


def test_one_kid_and_two_algorithms() -> None:
    """Kid and algorithm pick the key: what one has signed is nothing to the other."""
    one, other = es256(), ps256()
    by = judge(one, other)
    for issuer in (one, other):
        token = issuer.token()
        assert by.covered(token)[0].algorithm == foreign.NUMBERS[issuer.algorithm]
        assert right(by, issuer, token)
    alone = judge(one)
    assert refused(alone.covered, other.token()) == refused(alone.read, other.token()) == "token_key"
    with pytest.raises(StreamGateError, match="one kid"):
        judge(one, Issuer("ES256", ec.generate_private_key(ec.SECP256R1())))


@pytest.mark.parametrize("algorithm", [5, 4, -8, -35, -257])
def test_the_algorithm_fits_the_tag(algorithm: int) -> None:
    by = judge(es256(), ps256())
    assert verdict(es256().token(protected=encode({1: algorithm})), by=by) == "token_algorithm"
    assert verdict(es256().token(tag=b"\xd8\x3d\xd1"), by=by) == "token_algorithm", "a signature is no MAC"


def test_a_public_key_is_no_secret() -> None:
    """A MAC made with what everybody has, under the kid of who signs."""
    pem = es256().pem.encode()
    forged = signed({1: "shop"}, protected=encode({1: 5}), unprotected=encode({4: b"shop-1"}))
    by = Verifier([es256().key.verifying()])
    assert refused(by.read, forged) == "token_key"
    for secret in (pem, bytes(32)):
        with pytest.raises(StreamGateError, match="config_invalid"):
            Key(b"shop-1", secret, issuer="shop", leased=False, algorithm=-7)
    with pytest.raises(StreamGateError, match="config_invalid"):
        Key(b"shop-1", b"", issuer="shop", algorithm=-7)
    with pytest.raises(StreamGateError, match="config_invalid"):
        Key(b"shop-1", b"", issuer="shop", leased=False, algorithm=-8)


@BOTH
def test_signatures_that_are_not_right(issuer: Issuer) -> None:
    checker = load(issuer.pem, issuer.algorithm)
    covered = b"what is covered"
    good = issuer.signature(covered)
    assert checker.right(covered, good) and not checker.right(covered + b".", good)
    for wrong in (b"", good[:-1], good + b"\0", bytes(len(good)), b"\xff" * len(good), good[1:] + good[:1]):
        assert not checker.right(covered, wrong)
    stranger = (
        replace(issuer, private=ec.generate_private_key(ec.SECP256R1())) if issuer.algorithm == "ES256" else ps256(b"x")
    )
    assert not checker.right(covered, stranger.signature(covered))


def test_of_ours_none_is_remembered() -> None:
    by = judge(es256())
    assert refused(by.remember, signed({}), FAR) == "token_signature"
    assert refused(by.remember, "!", FAR) == "token_malformed"
    assert by.read(signed({})).digest is None


def test_a_secret_that_is_shared_with_others() -> None:
    """HS256 of another issuer: its tokens, too, are remembered first, and the MAC is looked at each time."""
    theirs = keys.SharedKey(b"shop-0", bytes(32), "shop", ("site-eu-1",), ("exp",), leased=False)
    token = sign(theirs, {1: "shop", 3: "site-eu-1", 4: FAR})
    by = Verifier([KEY.verifying(), theirs.verifying()])
    assert verdict(token, by=by) == "token_signature"
    by.remember(token, NOW + 60)
    assert by.read(token).deadline == NOW + 60 and by.read(token).digest == sha256(token.encode()).digest()
    body = raw(token)
    forged = text(body[:-1] + bytes([body[-1] ^ 1]))
    assert refused(by.covered, forged) == refused(by.remember, forged, FAR) == "token_signature"


def test_what_is_remembered_is_bounded() -> None:
    issuer = es256()
    by = judge(issuer, remembered=4)
    made = [issuer.token({7: bytes([number])}) for number in range(6)]
    for token in made:
        by.remember(token, FAR)
    assert [verdict(token, by=by) for token in made] == ["token_signature"] * 2 + ["accept"] * 4
    # Other ways to write one token push others out of what is remembered, and no first sight.
    by.remember(issuer.token({7: b"long ago"}), NOW + 1)
    again = [issuer.token({7: b"long ago"}) for _ in range(6)]
    for token in again:
        by.remember(token, FAR)
    assert by.read(again[-1]).deadline == NOW + 1


def test_another_key_under_the_same_name() -> None:
    one, other = es256(), Issuer("ES256", ec.generate_private_key(ec.SECP256R1()))
    by, token = judge(one), one.token({4: FAR})
    by.remember(token, NOW + 60)
    found = by.read(token)
    by.configure([other.key.verifying()])
    assert refused(by.read, token) == "token_signature"
    with pytest.raises(StreamGateError, match="token_key"):
        by.check(found, path=PATH, now=NOW)
    by.configure([one.key.verifying()])
    by.remember(token, FAR)
    assert by.read(token).deadline == NOW + 60, "its first sight was before"


def test_what_keys_have_signed_that_stay_is_not_looked_at_again() -> None:
    es, ps = es256(), ps256()
    by = judge(es, ps)
    tokens = [issuer.token({4: FAR}) for issuer in (es, ps)]
    for token in tokens:
        by.remember(token, FAR)
    by.configure([es.key.verifying(), ps.key.verifying()], kept={(es.kid, foreign.NUMBERS["ES256"])})
    assert by.read(tokens[0]).deadline == FAR
    assert refused(by.read, tokens[1]) == "token_signature", "of the same kid, but of another algorithm"
    digest = by.read(tokens[0]).digest
    assert digest is not None
    by.revoke_token(digest, FAR)
    assert refused(by.read, tokens[0]) == "token_revoked"
    by.restore_token(digest)
    assert by.read(tokens[0]).deadline == FAR
    by.configure([], kept={(es.kid, foreign.NUMBERS["ES256"])})
    assert refused(by.read, tokens[0]) == "token_key"


class TestKeyFiles:
    DEFAULTS = Defaults("streamgate", ("site-eu-1",))

    def parse(self, text: str) -> keys.AnyKey:
        return keys.parse(text.encode(), "shop.toml", self.DEFAULTS)

    @BOTH
    def test_a_public_key(self, issuer: Issuer) -> None:
        key = self.parse(issuer.file)
        assert isinstance(key, PublicKey) and (key.kid, key.algorithm, key.leased) == (
            b"shop-1",
            issuer.algorithm,
            False,
        )
        assert key.verifying().algorithm == foreign.NUMBERS[issuer.algorithm] and "BEGIN" not in repr(key)

    @pytest.mark.parametrize(
        ("private", "algorithm"),
        [
            (ec.generate_private_key(ec.SECP384R1()), "ES256"),
            (ec.generate_private_key(ec.SECP256K1()), "ES256"),
            (ec.generate_private_key(ec.SECP256R1()), "PS256"),
            (ps256().private, "ES256"),
            (rsa.generate_private_key(65537, 1024), "PS256"),
        ],
    )
    def test_a_key_that_does_not_fit(self, private: ec.EllipticCurvePrivateKey, algorithm: Algorithm) -> None:
        pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        with pytest.raises(ValueError, match="needs"):
            load(pem, algorithm)

    def test_what_a_file_may_not_say(self) -> None:
        good = es256().file
        secret = f'secret = "{bytes(range(32)).hex()}"\n'
        for wrong in (
            good + secret,
            good.replace('"shop"', '"streamgate"'),
            good.replace('issuer = "shop"\n', ""),
            good.replace("ES256", "ES384"),
            good.replace("ES256", "PS256"),
            good.replace("BEGIN", "BEGUN"),
            good.replace('algorithm = "ES256"\n', ""),
            'kid = "x"\nissuer = "shop"\nalgorithm = "ES256"\n',
            'kid = "x"\nissuer = "shop"\nalgorithm = "ES256"\npublic = 5\n',
            f'kid = "x"\nissuer = "shop"\nalgorithm = "HS256"\n{secret}',
        ):
            assert refused(self.parse, wrong) == "config_invalid"
