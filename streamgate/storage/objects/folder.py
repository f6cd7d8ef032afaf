"""A folder of this machine as a store of objects: keys are paths below it. What blocks runs in threads."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import secrets
import stat
import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from streamgate.core.settings.origin import S3Settings
from streamgate.errors import StreamGateError
from streamgate.storage.objects.store import ObjectInfo, Progress, check_key, in_one_piece, is_key

T = TypeVar("T")

_THREADS = 8
_PIECE = 256 * 1024
_LISTED_AT_ONCE = 500
_UNFINISHED = ".streamgate-unfinished-"  # at the root, and no part of any listing


class FolderStore:
    """The files below ``root``; symbolic links are followed, hidden files are objects too.

    An ETag is made of (inode, size, modification time in ns). Writers of other processes that use this class are
    excluded from each other's conditions by a lock on the folder.
    """

    def __init__(self, root: Path, settings: S3Settings) -> None:
        self.name = str(root)
        self._root = root
        self._read_limit = settings.read_limit
        self._list_limit = settings.list_limit
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="streamgate-folder")

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """All files below ``prefix``, by key; see :class:`~.store.ObjectStore`."""
        found = self._walk("", prefix)
        listed = 0
        while batch := await self._run(lambda: [*islice(found, _LISTED_AT_ONCE)]):
            for info in batch:
                listed += 1
                if listed > self._list_limit:
                    raise StreamGateError("listing_too_long", f"{self.name}: more than {self._list_limit} files")
                yield info

    async def stat(self, key: str) -> ObjectInfo:
        """What is there now; raises ``source_not_found``."""
        check_key(key)
        return await self._run(lambda: self._stat(key))

    @contextlib.asynccontextmanager
    async def reading(
        self, key: str, offset: int = 0, length: int | None = None, *, etag: str | None = None
    ) -> AsyncIterator[_FileReading]:
        """The bytes [offset, offset + length); see :class:`~.store.ObjectStore`."""
        check_key(key)
        opening = self._threads.submit(self._open, key, etag)
        try:
            fd, info = await asyncio.wrap_future(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unused)
            raise
        reading = _FileReading(self._run, fd, info, offset, length)
        try:
            yield reading
        finally:
            self._threads.submit(reading.close)

    async def read(self, key: str, offset: int = 0, length: int | None = None, *, etag: str | None = None) -> bytes:
        """The same in one piece; raises ``source_too_complex`` beyond the limit."""
        async with self.reading(key, offset, length, etag=etag) as reading:
            return await in_one_piece(reading, offset, length, self._read_limit)

    async def read_into(
        self, key: str, offset: int, buffer: memoryview, *, etag: str | None = None, progress: Progress | None = None
    ) -> ObjectInfo:
        """Fill ``buffer`` from ``offset`` on; see :class:`~.store.ObjectStore`."""
        async with self.reading(key, offset, len(buffer), etag=etag) as reading:
            await reading.into(buffer, progress)
            return reading.info

    async def put(
        self, key: str, data: bytes | AsyncIterable[bytes], *, only_new: bool = False, etag: str | None = None
    ) -> ObjectInfo:
        """Write beside and rename; raises ``precondition_failed``, ``output_failed``."""
        check_key(key)
        unfinished = self._root / f"{_UNFINISHED}{secrets.token_hex(8)}"
        try:
            fd = await self._run(
                lambda: os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            )
            try:
                async for piece in _pieces(data):
                    await self._run(lambda piece=piece: _write(fd, piece))  # type: ignore[misc]
                await self._run(lambda: os.fsync(fd))
            finally:
                await asyncio.shield(self._run(lambda: os.close(fd)))
            return await self._run(lambda: self._replace(unfinished, key, only_new, etag))
        except OSError as e:
            raise StreamGateError("output_failed", f"{key}: {os.strerror(e.errno or errno.EIO)}") from e
        finally:
            with contextlib.suppress(FileNotFoundError):
                await asyncio.shield(self._run(lambda: unfinished.unlink()))

    async def delete(self, key: str) -> None:
        """Remove a file; its folder stays."""
        check_key(key)

        def delete() -> None:
            with self._locked(), contextlib.suppress(FileNotFoundError, NotADirectoryError):
                (self._root / key).unlink()

        try:
            await self._run(delete)
        except OSError as e:
            raise StreamGateError("output_failed", f"{key}: {os.strerror(e.errno or errno.EIO)}") from e

    async def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _stat(self, key: str) -> ObjectInfo:
        with _mapped(key):
            status = os.stat(self._root / key)
        if not stat.S_ISREG(status.st_mode):
            raise StreamGateError("source_not_found", f"{key}: no such file")
        return _info(key, status)

    def _open(self, key: str, etag: str | None) -> tuple[int, ObjectInfo]:
        with _mapped(key):
            # O_NONBLOCK so that a FIFO cannot hang the open.
            fd = os.open(self._root / key, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise StreamGateError("source_not_found", f"{key}: no such file")
            info = _info(key, status)
            if etag is not None and info.etag != etag:
                raise StreamGateError("source_changed", f"{key}: another version is there now")
            return fd, info
        except BaseException:
            os.close(fd)
            raise

    def _walk(self, folder: str, prefix: str) -> Iterator[ObjectInfo]:
        """Files below ``folder`` ("" or with a slash at its end) by the bytes of their keys, as S3 lists them."""
        try:
            with os.scandir(self._root / folder) as scan:
                entries = [(entry.name + "/" * entry.is_dir(), entry) for entry in scan]
        except FileNotFoundError:
            if folder or self._root.is_dir():
                return  # it went away meanwhile
            raise StreamGateError("source_not_found", f"{self.name}: no such folder") from None
        except OSError as e:
            if folder and e.errno in (errno.ELOOP, errno.ENAMETOOLONG):
                return
            raise StreamGateError("source_unreadable", f"{folder or self.name}: {e.strerror}") from e
        for name, entry in sorted(entries, key=lambda found: os.fsencode(found[0])):
            key = folder + name
            if not is_key(key.removesuffix("/")) or key.startswith(_UNFINISHED):
                continue
            if name.endswith("/"):
                if key.startswith(prefix) or prefix.startswith(key):
                    yield from self._walk(key, prefix)
            elif key.startswith(prefix):
                with contextlib.suppress(OSError):  # it went away meanwhile, or is a link to nowhere
                    status = entry.stat()
                    if stat.S_ISREG(status.st_mode):
                        yield _info(key, status)

    def _replace(self, unfinished: Path, key: str, only_new: bool, etag: str | None) -> ObjectInfo:
        path = self._root / key
        with self._locked():
            try:
                there = _info(key, os.stat(path)).etag
            except (FileNotFoundError, NotADirectoryError):
                there = None
            if (only_new and there is not None) or (etag is not None and there != etag):
                raise StreamGateError("precondition_failed", f"{key}: {'it is there' if there else 'it is not there'}")
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(unfinished, path)
            folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
            return _info(key, os.stat(path))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(self._root, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


class _FileReading:
    """Reads piece by piece; a piece is given out only if the file was still the same after it was read."""

    def __init__(
        self,
        run: Callable[[Callable[[], Any]], Awaitable[Any]],
        fd: int,
        info: ObjectInfo,
        offset: int,
        length: int | None,
    ) -> None:
        self.info = info
        self._run = run
        self._fd = fd
        self._at = offset
        # A read that was cancelled goes on in its thread: until it ends, its descriptor must not become another file's.
        self._in_use = threading.Lock()
        self._end = info.size if length is None else min(info.size, offset + length)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._at < self._end:
            piece: bytes = await self._run(self._next)
            self._at += len(piece)
            yield piece

    async def into(self, buffer: memoryview, progress: Progress | None) -> None:
        """Fill ``buffer`` with the range, which must be as long; raises ``source_changed`` where the file is shorter."""
        filled = 0
        while filled < len(buffer):
            # Not given up half-way: a thread would go on writing into what is no longer ours.
            part = buffer[filled : filled + _PIECE]
            filled += await _uninterrupted(self._run(partial(self._read, part)))
            if progress is not None:
                progress(filled)

    def _next(self) -> bytes:
        with _mapped(self.info.key), self._in_use:
            piece = os.pread(self._fd, min(_PIECE, self._end - self._at), self._at)
            status = os.fstat(self._fd)
        self._check(bool(piece), status)
        return piece

    def _read(self, part: memoryview) -> int:
        with _mapped(self.info.key), self._in_use:
            count = os.preadv(self._fd, [part], self._at)
            status = os.fstat(self._fd)
        self._check(count > 0, status)
        self._at += count
        return count

    def _check(self, any_read: bool, status: os.stat_result) -> None:
        if not any_read or _info(self.info.key, status).etag != self.info.etag:
            raise StreamGateError("source_changed", f"{self.info.key}: written to while it was read")

    def close(self) -> None:
        """Close the file; blocks while it is read."""
        with self._in_use:
            os.close(self._fd)
            self._fd = -1


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    etag = f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"
    return ObjectInfo(key, status.st_size, etag, status.st_mtime)


@contextlib.contextmanager
def _mapped(key: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise StreamGateError("source_not_found", f"{key}: no such file") from None
    except OSError as e:
        raise StreamGateError("source_unreadable", f"{key}: {os.strerror(e.errno or errno.EIO)}") from e


async def _uninterrupted(work: Awaitable[T]) -> T:
    """The result of ``work``; who is cancelled meanwhile waits for its end first."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((task,))
        with contextlib.suppress(StreamGateError):
            task.result()
        raise


def _close_unused(opening: Future[tuple[int, ObjectInfo]]) -> None:
    """Nobody waits any more for the file that this opens."""
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result()[0])


async def _pieces(data: bytes | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(data, bytes):
        yield data
    else:
        async for piece in data:
            yield piece


def _write(fd: int, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[os.write(fd, left) :]
