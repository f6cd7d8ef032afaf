"""Signatures of tokens that others issue: ES256 and PS256 (RFC 9053 section 2.1, RFC 8230 section 2).

``cryptography`` does the arithmetic, some 0.1 ms a signature; it is imported where a public key is configured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from streamgate.errors import StreamGateError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

Algorithm = Literal["ES256", "PS256"]
NUMBERS: dict[Algorithm, int] = {"ES256": -7, "PS256": -37}
"""As COSE has them."""
HS256 = 5
_WIDTH = 32  # bytes of a number of P-256
_RSA_BITS = (2048, 4096)


class Checker:
    """Looks at signatures by one public key. Any thread may use it."""

    def __init__(self, key: EllipticCurvePublicKey | RSAPublicKey) -> None:
        self._key = key

    def right(self, covered: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is the key's over ``covered``."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ec, padding
        from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
        from cryptography.hazmat.primitives.hashes import SHA256

        try:
            if isinstance(self._key, ec.EllipticCurvePublicKey):
                if len(signature) != 2 * _WIDTH:
                    return False
                r, s = (int.from_bytes(half) for half in (signature[:_WIDTH], signature[_WIDTH:]))
                self._key.verify(encode_dss_signature(r, s), covered, ec.ECDSA(SHA256()))
            else:
                # The salt is as long as the hash, no longer and no shorter.
                self._key.verify(signature, covered, padding.PSS(padding.MGF1(SHA256()), SHA256.digest_size), SHA256())
        except InvalidSignature:
            return False
        return True


def load(pem: str, algorithm: Algorithm) -> Checker:
    """Read a public key (SubjectPublicKeyInfo in PEM); raises ValueError for what is none, or none for ``algorithm``.

    Raises ``config_invalid`` where ``cryptography`` is not installed.
    """
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import ec, rsa
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError:
        raise StreamGateError(
            "config_invalid", "public keys need the extra: pip install 'streamgate[control]'"
        ) from None
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("no public key in PEM") from None
    if algorithm == "ES256":
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
            return Checker(key)
        raise ValueError("ES256 needs a key of the curve P-256")
    if isinstance(key, rsa.RSAPublicKey) and _RSA_BITS[0] <= key.key_size <= _RSA_BITS[1]:
        return Checker(key)
    raise ValueError(f"PS256 needs an RSA key of {_RSA_BITS[0]} to {_RSA_BITS[1]} bits")
