"""Names of renditions. A name is a promise: equal names have equal bytes.

A name carries 64 bits over the *inputs* of the bytes, so that it can be told before any byte is made.
"""

from __future__ import annotations

from collections.abc import Container
from hashlib import blake2b


def digest(*inputs: object) -> str:
    """16 hex digits over ``inputs``: bytes, strings, integers and whatever else has an unambiguous ``repr``."""
    state = blake2b(digest_size=8)
    for value in inputs:
        data = value if isinstance(value, bytes) else repr(value).encode()
        # Lengths keep ("ab", "c") and ("a", "bc") apart.
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.hexdigest()


def name(prefix: str, taken: Container[str], *inputs: object) -> str:
    """``prefix`` (its letters and digits only) and the digest of ``inputs``; never one that is already ``taken``."""
    plain = "".join(c for c in prefix.lower() if c.isascii() and c.isalnum())
    for twin in range(1 << 20):
        # The same track given twice has the same inputs: its number among its twins tells them apart.
        made = f"{plain}-{digest(*inputs, twin)}"
        if made not in taken:
            return made
    raise AssertionError("unreachable: a million equal digests")
