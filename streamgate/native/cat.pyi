"""Common Access Tokens (CTA-5007) as CWT (RFC 8392) under COSE_Mac0 with HMAC-SHA256 (RFC 9052, RFC 9053): verifying them."""

from collections.abc import Collection, Mapping, Sequence
from typing import final

CODES: tuple[str, ...]
"""Error codes by the numbers of the C interface, in the order of the checks; CODES[0] is empty: accepted."""
CLAIMS: Mapping[str, int]
"""Claims by name with their keys; ``require`` names claims so."""
OPENSSL: str
"""The version of the libcrypto that is linked at run time."""

@final
class Key:
    """A key of one issuer. It keeps no secret, only SHA-256's states after the pads (RFC 2104), and shows neither.

    ``audience``: of these one must be the token's, where it names any. ``require``: names of claims that must be there.
    ``prefixes``: paths that its tokens may open at all begin so; all paths where empty.
    ``leased``: it is ours, and its tokens count while their session holds a lease; those of others count once they are
    remembered (:meth:`Verifier.remember`). ``algorithm`` (of COSE): 5 HS256; -7 ES256 and -37 PS256, which are for keys
    of others and have no secret: the public key is held by who looks at signatures.
    Raises ``config_invalid`` for a secret below 32 bytes, an empty kid, or a claim that is not known.
    """

    def __init__(
        self,
        kid: bytes,
        secret: bytes,
        *,
        issuer: str,
        audience: Sequence[str] = (),
        require: Collection[str] = ("iss", "exp", "cti", "aud"),
        prefixes: Sequence[str] = (),
        leased: bool = True,
        algorithm: int = 5,
    ) -> None: ...
    @property
    def algorithm(self) -> int: ...
    @property
    def leased(self) -> bool: ...
    @property
    def kid(self) -> bytes: ...
    @property
    def issuer(self) -> str: ...
    @property
    def audience(self) -> tuple[str, ...]: ...
    @property
    def prefixes(self) -> tuple[str, ...]: ...
    @property
    def require(self) -> tuple[str, ...]: ...

@final
class Token:
    """A token whose envelope, MAC, claims, issuer and audience are good; made by :meth:`Verifier.read` alone."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Raises TypeError."""
    @property
    def key(self) -> Key: ...
    @property
    def kid(self) -> bytes:
        """The key's."""
    @property
    def session(self) -> bytes:
        """The session's handle: the first 16 bytes of cti, a shorter cti as a whole.

        Of a token without cti the first 16 bytes of the SHA-256 of its MAC, which covers all that counts: its
        characters could be written in another way.
        """
    @property
    def digest(self) -> bytes | None:
        """SHA-256 of the token's characters, of tokens of others; None for ours."""
    @property
    def deadline(self) -> int:
        """The first second since 1970 in which it no longer counts: exp and 30 s of grace; 2^63 - 1 without exp."""
    due: int
    """The second since 1970 from which it ought to be renewed, by its catr; 2^63 - 1 where nobody can.

    That is catr's deadline before exp, or half of the time that catr adds where it names none. Of tokens of ours alone.
    """
    @property
    def start(self) -> int:
        """The first second since 1970 in which it counts: nbf less 60 s of skew."""
    @property
    def unsupported(self) -> bool:
        """Whether it holds something that is not evaluated here, networks apart."""
    def payload_claims(self) -> dict[object, object]:
        """All of its claims, as :func:`decode` gives them."""
    def check(
        self,
        *,
        method: str = "GET",
        scheme: str = "https",
        host: str = "",
        path: str,
        address: bytes = b"",
        now: int,
    ) -> None:
        """Look at what may differ between requests: time, method, path and network.

        ``path`` is canonical, behind ``/t/{token}``; ``address`` has 4 or 16 bytes, or none where it is not known;
        ``now`` in s since 1970.
        Raises the first of ``token_expired``, ``token_not_yet_valid``, ``token_method``, ``token_path``,
        ``token_network``, and where no claim says no but one is not evaluated here, ``token_unsupported``.
        """

@final
class Verifier:
    """All keys of a node, what is revoked, and which tokens of others were seen before."""

    def __init__(self, keys: Sequence[Key] = (), remembered: int = 10_000) -> None: ...
    @property
    def remembered(self) -> int:
        """How many tokens of others are remembered at most."""
    @property
    def generation(self) -> int:
        """Changes with the keys: tokens that were read before are read again."""
    @property
    def revocations(self) -> int:
        """Changes with what is revoked."""
    @property
    def revoked(self) -> int:
        """How many sessions, keys and tokens are revoked."""
    def configure(self, keys: Sequence[Key], kept: Collection[tuple[bytes, int]] = ()) -> None:
        """Replace all keys, and look at all signatures anew but those by keys that are ``kept`` (kid and algorithm).

        Raises ``config_invalid`` where two have one kid and one algorithm.
        """
    def revoke_session(self, session: bytes, until: int) -> None:
        """Refuse all tokens of a session: its handle, or a cti of which the first 16 bytes count.

        ``until``: s since 1970, no earlier than the exp and grace of the last of them.
        """
    def revoke_kid(self, kid: bytes, until: int) -> None:
        """Refuse all tokens made with a key, until s since 1970."""
    def revoke_token(self, digest: bytes, until: int) -> None:
        """Refuse one token: the SHA-256 of its characters. Other ways to write a token that was seen are refused with it."""
    def restore_session(self, session: bytes) -> None:
        """Take a session's revocation back."""
    def restore_kid(self, kid: bytes) -> None:
        """Take a key's revocation back."""
    def restore_token(self, digest: bytes) -> None:
        """Take a token's revocation back."""
    def covered(self, token: str | bytes) -> tuple[Key, bytes, bytes, bytes, bytes]:
        """A token's key, what its MAC or signature covers, that itself, and two digests (32 bytes each).

        The first is the SHA-256 of the token's characters, the second the same however the token is written. Only the
        envelope is looked at, and a MAC; raises ``token_too_long`` to ``token_signature``, as :meth:`read` does.
        """
    def remember(self, token: str | bytes, until: int) -> None:
        """From now on a token of another issuer counts, as its signature is right, until s since 1970 at most.

        Of several calls for one token, however it is written, the first ``until`` counts. Only the
        latest are remembered. Raises as :meth:`covered`, and ``token_signature`` for a wrong MAC and for tokens of ours.
        """
    def forget(self, now: int) -> int:
        """Drop revocations whose time has passed; how many."""
    def read(self, token: str | bytes) -> Token:
        """Verify all that does not differ between requests, in this order, each with its own code.

        ``token_too_long`` (1 024 characters), ``token_malformed`` (base64url, envelope), ``token_algorithm``,
        ``token_key``, ``token_signature``, ``token_malformed`` (claims), ``token_missing_claim``, ``token_issuer``,
        ``token_audience``, ``token_revoked``. One of another issuer that is not remembered is ``token_signature``.
        """
    def check(
        self,
        token: Token,
        *,
        method: str = "GET",
        scheme: str = "https",
        host: str = "",
        path: str,
        address: bytes = b"",
        now: int,
    ) -> None:
        """As :meth:`Token.check`, after ``token_key`` (the keys changed: read it again) and ``token_revoked``."""

def decode(token: str | bytes) -> tuple[int, dict[object, object], dict[object, object], dict[object, object]]:
    """What a token says, believed or not: its COSE tag (17 or 18), protected and unprotected headers, and claims.

    Tags become pairs (tag, value). For people only: nothing is verified.
    Raises ``token_too_long`` and ``token_malformed``.
    """
