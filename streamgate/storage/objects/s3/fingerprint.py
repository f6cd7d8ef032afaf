"""What two copies of an object agree in where their ETags do not, as after uploads in parts of different sizes.

A digest of the size, of the sample index and of blocks spread over the whole: what tells files apart without reading them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import blake2b

from streamgate.errors import StreamGateError
from streamgate.native.isobmff import Parser

_BLOCKS = 16
_BLOCK = 4096
_REQUESTS = 64  # for an index; a recording with more fragments than that is compared by its blocks
_MOST = 64 * 1024 * 1024  # bytes of an index that are read

Read = Callable[[int, int], Awaitable[bytes]]
"""(offset, length) → bytes."""


async def fingerprint(size: int, read: Read) -> str:
    """32 hexadecimal digits. Some twenty small requests: it is for the caller to remember it."""
    digest = blake2b(size.to_bytes(8, "big"), digest_size=16)
    digest.update(blake2b(await _index(size, read), digest_size=16).digest())
    step = max(_BLOCK, -(-size // _BLOCKS))
    offsets = [*range(0, size, step), max(0, size - _BLOCK)]
    for block in await asyncio.gather(*(read(offset, _BLOCK) for offset in offsets)):
        digest.update(block)
    return digest.hexdigest()


async def _index(size: int, read: Read) -> bytes:
    """The sample index, b"" of what has none that can be read with a few requests.

    Not the bytes that it is in: what a ``moov`` says besides (ISO/IEC 14496-12 section 8.10, user data) may differ.
    """
    parser = Parser(size, max_index_bytes=_MOST)
    for _ in range(_REQUESTS):
        wanted = parser.want
        data = await read(*wanted) if wanted is not None else b""
        try:
            if wanted is None:
                return await asyncio.to_thread(lambda: parser.index().dumps())
            await asyncio.to_thread(parser.feed, data)
        except StreamGateError:  # no such file
            break
    return b""
