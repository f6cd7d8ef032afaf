"""What a store of objects is: flat names, bytes read by ranges, versions told apart by an ETag (RFC 9110 section 8.8.3).

All implementations pass one suite of tests: a folder (:mod:`.folder`), S3 and several buckets as one (:mod:`.s3`).
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from streamgate.errors import StreamGateError

if TYPE_CHECKING:
    from streamgate.core.settings.origin import S3Settings
    from streamgate.core.telemetry import Telemetry

_MAX_KEY = 1024  # bytes of UTF-8, the limit of S3

Progress = Callable[[int], None]
"""Is told how many bytes of a buffer are there, of the right version; called in the event loop, it only takes note."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One version of an object: ``size`` in bytes, ``etag`` opaque and without quotes, ``modified`` in s since 1970."""

    key: str
    size: int
    etag: str
    modified: float


class Reading(Protocol):
    """The bytes of one range, in order, in pieces of any size; ``info`` is of the object they are read from."""

    @property
    def info(self) -> ObjectInfo:
        """The object, known when the block is entered."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces; what raises in between has never delivered a byte of another version."""


class ObjectStore(Protocol):
    """Objects by key. Keys are relative paths without empty parts, ``.`` and ``..``; others are ``path_malformed``.

    Beside the errors named below every call raises ``origin_unavailable`` (it cannot be reached, or fails; a retry may
    help), ``origin_denied`` (it does not let us) and, for folders, ``source_unreadable``.
    """

    @property
    def name(self) -> str:
        """For people and logs; never holds a secret."""

    def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """All objects whose key begins with ``prefix``, by key. Raises ``listing_too_long`` beyond the limit.

        What a folder's file or a bucket's object is called that is no key in the sense above is left out.
        """

    async def stat(self, key: str) -> ObjectInfo:
        """What is there now; raises ``source_not_found``."""

    def reading(
        self, key: str, offset: int = 0, length: int | None = None, *, etag: str | None = None
    ) -> AbstractAsyncContextManager[Reading]:
        """Exactly the bytes [offset, offset + length), None: to the end; fewer only at the object's end.

        Raises ``source_not_found``, and ``source_changed`` where the object is not ``etag``'s, or is replaced meanwhile;
        of one that has gone altogether, either.
        """

    async def read(self, key: str, offset: int = 0, length: int | None = None, *, etag: str | None = None) -> bytes:
        """The same in one piece; raises ``source_too_complex`` where it were longer than the limit."""

    async def read_into(
        self, key: str, offset: int, buffer: memoryview, *, etag: str | None = None, progress: Progress | None = None
    ) -> ObjectInfo:
        """Fill ``buffer`` (bytes, not empty) from ``offset`` on, with as few copies as can be; raises as :meth:`reading`.

        An object that ends before the buffer does is ``source_changed``. Once this has returned, raised or was
        cancelled, nobody writes into the buffer any more; what ``progress`` told of stays.
        """

    async def put(
        self, key: str, data: bytes | AsyncIterable[bytes], *, only_new: bool = False, etag: str | None = None
    ) -> ObjectInfo:
        """Write an object whole: it is replaced at once, or not at all.

        ``only_new``: where there is none; ``etag``: where it is this version; else raises ``precondition_failed``.
        """

    async def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""

    async def close(self) -> None:
        """Give back connections and threads."""


@runtime_checkable
class Replicated(Protocol):
    """A store whose objects have copies, which may have ETags of their own."""

    async def agreed(self, info: ObjectInfo) -> ObjectInfo:
        """What was listed, by the name that its copies share. Raises as ``stat``, and ``source_changed``."""


def check_key(key: str) -> str:
    """``key``, where it is one; raises ``path_malformed``."""
    if not is_key(key):
        raise StreamGateError("path_malformed", "a key is a relative path without empty parts, '.' and '..'")
    return key


def is_key(key: str) -> bool:
    """Whether this can name an object in every store."""
    try:
        size = len(key.encode())
    except UnicodeEncodeError:  # a name of a file that is no UTF-8
        return False
    parts = key.split("/")
    return 0 < size <= _MAX_KEY and "\0" not in key and not any(part in ("", ".", "..") for part in parts)


async def in_one_piece(reading: Reading, offset: int, length: int | None, limit: int) -> bytes:
    """What ``reading`` gives of [offset, offset + length); raises ``source_too_complex`` where that were over ``limit``."""
    rest = max(0, reading.info.size - offset)
    size = rest if length is None else min(length, rest)
    if size > limit:
        raise StreamGateError("source_too_complex", f"{reading.info.key}: {size} bytes are more than {limit} at once")
    pieces = [piece async for piece in reading]
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def open_store(
    url: str, settings: S3Settings, telemetry: Telemetry | None = None, data: Path | None = None
) -> ObjectStore:
    """The store at ``s3://bucket/prefix`` or in a folder; ``settings.replicas`` join a bucket, whose copies are compared
    once and remembered in the folder ``data``.

    Raises ``config_invalid`` where the address is wrong or what it needs is not installed.
    """
    if url.startswith("s3://"):
        from streamgate.storage.objects.s3 import open_s3

        return await open_s3(url, settings, telemetry, data)
    if "://" in url:
        raise StreamGateError(
            "config_invalid", f"stores are folders or s3://bucket/prefix, not {url.partition(':')[0]}://"
        )
    from streamgate.storage.objects.folder import FolderStore

    return FolderStore(Path(url), settings)
