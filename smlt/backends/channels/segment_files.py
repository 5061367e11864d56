"""Which segments there are, by the names of their files: who wrote them, in which round, and which of them are newest.

A name is generation.round.rank.birth.index. Files are only created and unlinked; who has one mapped keeps its memory.
"""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from smlt.backends.channels.segment import OwnSegment, Segment
from smlt.core.errors import ChannelError

Address = tuple[int, int, int]
"""Generation, round, rank: whose segments these are."""

CREATE_ATTEMPTS = 5


@dataclass(frozen=True)
class SegmentFiles:
    """The folders that hold the segments of a run: the first is preferred, the others are used when it is full."""

    folders: tuple[Path, ...]

    def create(self, stem: str, index: int, data_bytes: int) -> OwnSegment:
        """A new segment where there is room for it.

        Raises:
            ChannelError: there is none anywhere.
        """
        full: OSError | None = None
        for folder in self.folders:
            try:
                return _create(folder, f"{stem}.{index}", data_bytes)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EFBIG, errno.EOVERFLOW):
                    raise _denied(folder, error) from error
                full = error
        places = " and ".join(map(str, self.folders))
        raise ChannelError(
            f"{data_bytes / 1e6:.0f} MB of shared memory are not to be had in {places}",
            "use fewer workers, or give the container more (docker run --shm-size)",
        ) from full

    def open(self, stem: str, index: int) -> Segment | None:
        """Another writer's segment; None where it is not there (any more).

        Raises:
            ChannelError: it cannot be read, or is no segment.
        """
        for folder in self.folders:
            try:
                return Segment.open(folder / f"{stem}.{index}")
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _denied(folder, error) from error
        return None

    def newest_stem(self, address: Address) -> str | None:
        """The name, without its index, of the newest writer at this address; None while there is none."""
        start = _start(address)
        stems = [name.removesuffix(".0") for name in self._names() if name.startswith(start) and name.endswith(".0")]
        return max(stems, default=None)

    def bury_predecessors(self, address: Address) -> None:
        """Unlink what earlier incarnations of a rank left: of earlier rounds, and of generations before the last.

        The last generation may still be at work, handing over. Those of an earlier round of this one are dead.
        """
        generation, round_number, rank = address
        for folder in self.folders:
            for name in _names(folder):
                theirs = address_of(name)
                if theirs is None or theirs[2] != rank:
                    continue
                if theirs[0] < generation - 1 or (theirs[0] == generation and theirs[1] < round_number):
                    (folder / name).unlink(missing_ok=True)

    def leave(self) -> None:
        """Remove the folders if nobody else has anything in them."""
        for folder in self.folders:
            with suppress(OSError):
                folder.rmdir()

    def sweep(self) -> list[str]:
        """Remove all segments and their folders; returns the paths of the folders that were there."""
        removed = []
        for folder in self.folders:
            if not folder.is_dir():
                continue
            for name in _names(folder):
                if address_of(name.removeprefix(".")) is not None:
                    (folder / name).unlink(missing_ok=True)
            removed.append(str(folder))
        self.leave()
        return removed

    def _names(self) -> Iterator[str]:
        for folder in self.folders:
            yield from _names(folder)


def new_stem(address: Address) -> str:
    """A name for a new writer's segments; of several at one address the newest sorts last."""
    return f"{_start(address)}{time.time_ns():016x}{uuid.uuid4().hex[:8]}"


def address_of(name: str) -> Address | None:
    """Whose segment a file is; None if it is none."""
    parts = name.split(".")
    if len(parts) != 5 or not all(part.isdecimal() for part in parts[:3]):
        return None
    return int(parts[0]), int(parts[1]), int(parts[2])


def _start(address: Address) -> str:
    return "".join(f"{number}." for number in address)


def _names(folder: Path) -> Sequence[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        raise _denied(folder, error) from error


def _denied(folder: Path, error: OSError) -> ChannelError:
    return ChannelError(f"{folder}: {error.strerror}", "can this user read and write there?")


def _create(folder: Path, name: str, data_bytes: int) -> OwnSegment:
    for _ in range(CREATE_ATTEMPTS - 1):
        with suppress(FileNotFoundError):  # the last one to leave removed the folder at this moment
            _make_private(folder)
            return OwnSegment.create(folder / name, data_bytes)
    _make_private(folder)
    return OwnSegment.create(folder / name, data_bytes)


def _make_private(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    # /dev/shm is everyone's: gradients and weights are not written where another user made the folder.
    if folder.lstat().st_uid != os.getuid():
        raise ChannelError(f"{folder} belongs to another user", "choose another --name, or have it removed")
