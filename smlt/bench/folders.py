"""The folder of one setting, locked while it is used, so that a later run can remove what one that was killed left.

The kernel lets go of a lock when its process is gone, however that ended.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "smlt-bench-"


@contextmanager
def fresh_folder(parent: Path) -> Iterator[Path]:
    """A folder that no `sweep` takes while it is used; it is removed afterwards."""
    folder, lock = _locked(parent)
    try:
        with folder as name:
            yield Path(name)
    finally:
        os.close(lock)


def _locked(parent: Path) -> tuple[tempfile.TemporaryDirectory[str], int]:
    while True:
        folder = tempfile.TemporaryDirectory(prefix=PREFIX, dir=parent)
        with suppress(FileNotFoundError):
            lock = _open(Path(folder.name))
            fcntl.flock(lock, fcntl.LOCK_EX)
            if Path(folder.name).exists():
                return folder, lock
            os.close(lock)
        folder.cleanup()  # a sweep was faster than the lock


def sweep(parents: Sequence[Path], clean: Callable[[Path], object]) -> list[Path]:
    """Remove this user's folders that nobody uses any more, each after `clean`; returns which they were."""
    removed = []
    for folder in (folder for parent in parents for folder in parent.glob(f"{PREFIX}*")):
        with suppress(OSError):  # another sweep removes it, or it is something else; measuring goes on
            lock = _open(folder)
            try:
                if os.fstat(lock).st_uid == os.getuid() and _take(lock):
                    clean(folder)
                    shutil.rmtree(folder)
                    removed.append(folder)
            finally:
                os.close(lock)
    return removed


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def _take(lock: int) -> bool:
    """Whether nobody had it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
