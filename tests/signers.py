"""Issuers who sign their tokens: keys of ES256 and PS256, their key files, and tokens in COSE_Sign1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from streamgate.access.cbor import encode
from streamgate.access.foreign import NUMBERS, Algorithm
from streamgate.access.keys import PublicKey
from tests.token_factory import BASE, text

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of P-256: (r, s) and (r, ORDER - s) are signatures of the same."""


@dataclass(frozen=True)
class Issuer:
    """``shop``, who signs with one key."""

    algorithm: Algorithm
    private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    kid: bytes = b"shop-1"

    @property
    def pem(self) -> str:
        return self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    @property
    def key(self) -> PublicKey:
        return PublicKey(self.kid, self.algorithm, self.pem, "shop", ("site-eu-1",), ("iss", "exp"))

    @property
    def file(self) -> str:
        """What a key file says of it."""
        return f'kid = "{self.kid.decode()}"\nissuer = "shop"\nalgorithm = "{self.algorithm}"\npublic = """\n{self.pem}"""\nrequire = ["exp"]\n'

    def signature(self, covered: bytes) -> bytes:
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            r, s = decode_dss_signature(self.private.sign(covered, ec.ECDSA(SHA256())))
            return r.to_bytes(32) + s.to_bytes(32)
        return self.private.sign(covered, padding.PSS(padding.MGF1(SHA256()), 32), SHA256())

    def token(self, claims: Mapping[int | str, Any] = {}, **envelope: Any) -> str:
        """A token of ``claims``, those of ``BASE`` among them; None takes one away."""
        whole = {**BASE, 1: "shop", **claims}
        return self.signed(encode({key: value for key, value in whole.items() if value is not None}), **envelope)

    def signed(self, payload: bytes, *, protected: bytes | None = None, unprotected: bytes | None = None,
               tag: bytes = b"\xd8\x3d\xd2", other: bool = False) -> str:  # fmt: skip
        """A token over any payload; ``other``: with the other signature that ECDSA has for it."""
        protected = encode({1: NUMBERS[self.algorithm]}) if protected is None else protected
        signature = self.signature(encode(["Signature1", protected, b"", payload]))
        if other:
            signature = signature[:32] + (ORDER - int.from_bytes(signature[32:])).to_bytes(32)
        unprotected = encode({4: self.kid}) if unprotected is None else unprotected
        return text(tag + b"\x84" + encode(protected) + unprotected + encode(payload) + encode(signature))


@cache
def es256(kid: bytes = b"shop-1") -> Issuer:
    """One with a key of its own, the same for a kid."""
    return Issuer("ES256", ec.generate_private_key(ec.SECP256R1()), kid)


@cache
def ps256(kid: bytes = b"shop-1") -> Issuer:
    """One with a key of its own, the same for a kid."""
    return Issuer("PS256", rsa.generate_private_key(65537, 2048), kid)
