"""Files before they are objects of a folder: out of sight, and locked while their writer lives.

A file that was an object may become the next one, if nobody reads it: whoever reads an object, or looks at it, holds a
shared lock of its file. It pays, since the memory of a new file costs more than filling it.
"""

from __future__ import annotations

import fcntl
import io
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from smlt.core.storage import Buffer

MOST_SPARES = 4
LEAST_SPARE_BYTES = 64 << 10

Spare = tuple[Path, io.FileIO]


class Staging:
    """The files that one client of a folder writes.

    Args:
        folder: where they are until they become objects; on the same file system.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._swept = False
        self._spares: list[Spare] = []

    @contextmanager
    def staged(self, parts: Sequence[Buffer]) -> Iterator[Spare]:
        """A file of these parts, to be moved away; removed otherwise."""
        self._sweep_once()
        path, file = self._take_spare(sum(memoryview(part).nbytes for part in parts)) or self._create()
        with file:
            try:
                for part in parts:
                    rest = memoryview(part).cast("B") if memoryview(part).nbytes else b""
                    while rest:
                        rest = rest[file.write(rest) :]
                file.truncate()
                yield path, file
            finally:
                path.unlink(missing_ok=True)
                fcntl.flock(file, fcntl.LOCK_UN)  # also of a copy that a fork may have made

    def keep(self, path: Path) -> bool:
        """Put an object's file aside for later; False if it is small or somebody's, or if there are enough.

        Whoever asks holds the lock of its key.
        """
        if len(self._spares) >= MOST_SPARES:
            return False
        with ExitStack() as stack:
            try:
                file = stack.enter_context(io.FileIO(path, "r+b"))
            except (FileNotFoundError, PermissionError):
                return False
            if not _is_worth_keeping(file):
                return False
            aside = path.replace(self._fresh_name())
            self._spares.append((aside, file))
            stack.pop_all()
        return True

    def clear(self) -> None:
        """Remove what was put aside."""
        while self._spares:
            path, file = self._spares.pop()
            with file:
                path.unlink(missing_ok=True)

    def _take_spare(self, size: int) -> Spare | None:
        if size < LEAST_SPARE_BYTES:
            return None
        try:
            nearest = min(self._spares, key=lambda spare: abs(os.fstat(spare[1].fileno()).st_size - size))
            self._spares.remove(nearest)
        except ValueError:  # there is none, or another thread was faster
            return None
        return nearest

    def _create(self) -> Spare:
        path = self._fresh_name()
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = io.FileIO(path, "xb")
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:
                return path, file
            file.close()  # a sweep was faster than the lock

    def _fresh_name(self) -> Path:
        return self._folder / f"staged-{uuid.uuid4().hex}"

    def _sweep_once(self) -> None:
        """Remove what writers left that died: nobody holds its lock."""
        if self._swept:
            return
        self._swept = True
        for left in self._folder.glob("staged-*"):
            with suppress(FileNotFoundError, BlockingIOError), left.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()


def _is_worth_keeping(file: io.FileIO) -> bool:
    """Whether it is large, has no other name, and is now locked, for it was nobody's."""
    status = os.fstat(file.fileno())
    if status.st_size < LEAST_SPARE_BYTES or status.st_nlink > 1:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_shared(path: Path) -> io.FileIO:
    """An object's file, to be read; it stays this object while the file, or a mapping of it, is open."""
    while True:
        with ExitStack() as stack:
            file = stack.enter_context(io.FileIO(path))
            with suppress(BlockingIOError):  # its writer is about to let go of it, or it is an object no longer
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    stack.pop_all()
                    return file
        os.sched_yield()
