"""ObjectStore in a folder: one file an object, named by its key, so that a user can look at a run with any tool.

Not over obstore: its LocalStore has no compare-and-swap, tags versions by inode, time and size as the kernel gives them
(which can repeat within a tick), refuses keys like "a#1", starts threads, and reads 32 MB two to three times slower.
"""

from __future__ import annotations

import errno
import fcntl
import io
import mmap
import os
import stat
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from smlt.backends.file_staging import Staging, open_shared
from smlt.core.errors import AccessDenied, AlreadyExists, ConfigError, Conflict, NotFound, StorageError, StoreFull
from smlt.core.storage import Buffer, ObjectInfo, ObjectStore, StoreSpec

UNLISTED = ".unlisted"
"""The folder, beside the objects, of what is none: locks, writes under way, memory shared by the run's processes."""

LOCKS = 64
MOVE_ATTEMPTS = 10

Admit = Callable[[os.stat_result | None], None]
"""Told what is there (None: nothing) under the lock of the key; raises if it may not be replaced."""


class FileObjectStore(ObjectStore):
    """Objects as files below the folder of a `file://` URL, which is made on the first write.

    A write goes to a file out of sight and is renamed; whoever writes or deletes an object holds the lock of its key.
    What was written survives the death of any process, not a power failure: nothing waits for the disk.
    An object cannot be in the way of a folder: where "a" is an object, "a/b" can be none.
    What `view` shows is the file itself, mapped: other programs may read objects and replace them, not write into them.

    Args:
        spec: its URL is the folder.
        clock_ns: the time of day in nanoseconds; part of version tags.
    """

    concurrency = 1

    def __init__(self, spec: StoreSpec, *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._root = folder_of(spec.url)
        self._clock_ns = clock_ns
        self._staging = Staging(self._root / UNLISTED)

    def _do_put(self, key: str, data: Buffer) -> str:
        return self._write(key, [data], lambda found: None)

    def _do_put_parts(self, key: str, parts: Sequence[Buffer]) -> str:
        return self._write(key, parts, lambda found: None)

    def _do_put_if_absent(self, key: str, data: Buffer) -> str:
        def admit(found: os.stat_result | None) -> None:
            if found is not None:
                raise AlreadyExists(f"{self._path(key)} exists already")

        return self._write(key, [data], admit)

    def _do_compare_and_swap(self, key: str, data: Buffer, version: str) -> str:
        def admit(found: os.stat_result | None) -> None:
            if found is None:
                raise NotFound(f"there is no {self._path(key)}")
            if _tag(found) != version:
                raise Conflict(f"{self._path(key)} changed since it was read")

        return self._write(key, [data], admit)

    def _do_get(self, key: str, start: int, length: int | None) -> bytes:
        return self._read(key, start, length)[0]

    def _do_get_versioned(self, key: str) -> tuple[bytes, str]:
        return self._read(key, 0, None)

    def _do_list(self, prefix: str) -> Iterator[ObjectInfo]:
        with self._translated(prefix):
            yield from sorted(self._below(prefix.rpartition("/")[0], prefix), key=lambda info: info.key)

    def _do_delete(self, key: str) -> None:
        self._remove(key, lambda path: False)

    def _do_delete_keeping_room(self, key: str) -> None:
        self._remove(key, self._staging.keep)

    def _do_close(self) -> None:
        self._staging.clear()

    def _remove(self, key: str, keep: Callable[[Path], bool]) -> None:
        path = self._path(key)
        with self._translated(key):
            if path.is_file():
                self._unlink(key, path, keep)

    def _unlink(self, key: str, path: Path, keep: Callable[[Path], bool]) -> None:
        with self._locked(key):
            if not keep(path):
                path.unlink(missing_ok=True)
            for folder in path.parents[: key.count("/")]:
                try:
                    folder.rmdir()
                except OSError:
                    break  # not empty

    def _write(self, key: str, parts: Sequence[Buffer], admit: Admit) -> str:
        path = self._path(key)
        with self._translated(key):
            admit(_stat(path))  # spares writing what will be refused; what counts is asked again under the lock
            with self._staging.staged(parts) as (staged, file), self._locked(key):
                found = _stat(path)
                admit(found)
                _stamp(file.fileno(), self._clock_ns(), found)
                _move(staged, path)
                return _tag(os.fstat(file.fileno()))

    def _read(self, key: str, start: int, length: int | None) -> tuple[bytes, str]:
        with self._opened(key) as file:
            status = os.fstat(file.fileno())
            file.seek(start)
            return file.read(max(0, _end(status, start, length) - start)), _tag(status)

    def _do_view(self, key: str, start: int, length: int | None) -> memoryview:
        with self._opened(key) as file:
            end = _end(os.fstat(file.fileno()), start, length)
            if end <= start:
                return memoryview(b"")
            before = start % mmap.ALLOCATIONGRANULARITY  # a mapping begins with a page
            mapped = mmap.mmap(file.fileno(), before + end - start, access=mmap.ACCESS_READ, offset=start - before)
            return memoryview(mapped)[before:]

    @contextmanager
    def _opened(self, key: str) -> Iterator[io.FileIO]:
        path = self._path(key)
        with self._translated(key):
            try:
                file = open_shared(path)
            except _NO_FILE:
                raise NotFound(f"there is no {path}") from None
            with file:
                yield file

    def _below(self, folder: str, prefix: str) -> Iterator[ObjectInfo]:
        try:
            entries = list(os.scandir(self._root / folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            key = f"{folder}/{entry.name}" if folder else entry.name
            if key == UNLISTED or not (key.startswith(prefix) or prefix.startswith(f"{key}/")):
                continue
            if entry.is_dir():
                yield from self._below(key, prefix)
            else:
                with suppress(FileNotFoundError):  # deleted meanwhile
                    status = entry.stat()
                    yield ObjectInfo(key, status.st_size, _tag(status))

    def _path(self, key: str) -> Path:
        if key.partition("/")[0] == UNLISTED or "\0" in key:
            raise ConfigError(f"not a key for a folder: {key!r}")
        return self._root / key

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        # One of a fixed set of files, so that none ever has to be removed. `flock` also excludes threads, as each opens
        # the file anew, and ends with its process. Python opens files close-on-exec: no child keeps a lock.
        name = self._root / UNLISTED / f"lock-{zlib.crc32(key.encode()) % LOCKS:02}"
        name.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # also of a copy that a fork may have made at this moment
            os.close(lock)

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            kind = _KINDS.get(error.errno or 0, StorageError)
            raise kind(f"{self._root / key}: {error.strerror}", _hint(error)) from error


_KINDS: dict[int, type[StorageError]] = {
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), AccessDenied),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), StoreFull),
}
_NO_FILE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


def folder_of(url: str) -> Path:
    """The folder that a `file://` URL names.

    Raises:
        ConfigError: it is none, or not absolute.
    """
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise ConfigError(f"not the URL of a folder: {url!r}", "it looks like file:///home/me/.smlt/runs/digits")
    return Path(unquote(parts.path))


def _end(status: os.stat_result, start: int, length: int | None) -> int:
    return status.st_size if length is None else min(status.st_size, start + length)


def _stat(path: Path) -> os.stat_result | None:
    try:
        found = path.stat()
    except _NO_FILE:
        return None
    return None if stat.S_ISDIR(found.st_mode) else found


def _stamp(file: int, now_ns: int, replaced: os.stat_result | None) -> None:
    """Give a file a time of its own: the kernel's may be coarser than two writes, and inodes and sizes repeat."""
    stamp = now_ns if replaced is None else max(now_ns, replaced.st_mtime_ns + 1)
    os.utime(file, ns=(stamp, stamp))


def _tag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_ino:x}-{status.st_size:x}"


def _move(staged: Path, path: Path) -> None:
    for attempt in range(MOVE_ATTEMPTS):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            staged.replace(path)
            return
        except FileNotFoundError:  # a delete of another object removed the folder, which that left empty
            if attempt == MOVE_ATTEMPTS - 1:
                raise


def _hint(error: OSError) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return "the disk is full: remove the folders of old runs (see `smlt runs`), or choose another --runs-dir"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return "not writable or readable by this user: choose another --runs-dir"
        case errno.ENOTDIR | errno.EEXIST | errno.EISDIR:
            return "a file or a folder of that name is in the way"
        case errno.ENOENT:
            return "no folder can be made there: choose another --runs-dir"
        case errno.ENAMETOOLONG:
            return "a part of a key holds 255 bytes at most in a folder"
    return ""
