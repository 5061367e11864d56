"""One file of shared memory: a header, a table of the values in it, and their bytes. One process writes, any may read.

Publishing is data first, then the entry, then its state, so that a writer which dies at any point leaves no half value.
"""

from __future__ import annotations

import mmap
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smlt.backends.channels.arena import Arena
from smlt.backends.channels.doorbell import Doorbell, futex
from smlt.core.errors import ChannelError

LAYOUT = 0x534D4C54_00000001
"""First word of a segment: "SMLT" and the version of this layout."""

ENTRIES = 1024
HEADER_BYTES = 4096
DATA_START = HEADER_BYTES + ENTRIES * 64

# Words of the header. The bell and the number of segments count in a writer's first segment only.
_LAYOUT, _USED, _SEGMENTS, _CLOSED, _BELL = 0, 1, 2, 3, 8
# Words of an entry: its state is 0 (free) or a number that no other publication in this segment has.
_STATE, _LOW, _HIGH, _OFFSET, _LENGTH = range(5)

Digest = tuple[int, int]
"""128 bits that stand for a key."""


def _fence() -> None:
    """What was written before is seen before what is written behind; likewise for reading.

    x86 orders so by itself; on Arm the release of one lock and the acquisition of the next order what is around them.
    """
    for lock in (threading.Lock(), threading.Lock()):
        lock.acquire()
        lock.release()


@dataclass(frozen=True)
class Place:
    """Where a value was found, and the state of its entry then."""

    slot: int
    state: int
    offset: int
    length: int


class Segment:
    """A mapped segment, as everyone sees it."""

    def __init__(self, path: Path, memory: mmap.mmap) -> None:
        self.path = path
        self._memory = memory
        words = np.frombuffer(memory, np.uint64, DATA_START // 8)
        self._header: NDArray[np.uint64] = words[: HEADER_BYTES // 8]
        self._table: NDArray[np.uint64] = words[HEADER_BYTES // 8 :].reshape(ENTRIES, 8)
        if int(self._header[_LAYOUT]) != LAYOUT:
            raise _foreign(path)
        bell = np.frombuffer(memory, np.uint32, 1, _BELL * 8)
        self.bell = Doorbell(bell, futex())

    @classmethod
    def open(cls, path: Path) -> Segment:
        """Map another process's segment, read-only.

        Raises:
            FileNotFoundError: there is none.
            ChannelError: it is no segment.
        """
        file = os.open(path, os.O_RDONLY)
        try:
            if os.fstat(file).st_size < DATA_START:
                raise _foreign(path)
            return cls(path, mmap.mmap(file, 0, access=mmap.ACCESS_READ))
        finally:
            os.close(file)

    @property
    def segments(self) -> int:
        """How many segments the writer has; asked of its first."""
        return int(self._header[_SEGMENTS])

    @property
    def is_closed(self) -> bool:
        """Whether the writer said that it is gone; asked of its first segment."""
        return bool(self._header[_CLOSED])

    def find(self, digest: Digest) -> Place | None:
        """Where the value of a key is; None while it is not published.

        Raises:
            ChannelError: it would lie outside: someone else writes here.
        """
        low, high = digest
        used = int(self._header[_USED])
        for slot in np.flatnonzero(self._table[:used, _LOW] == np.uint64(low)).tolist():
            entry = self._table[slot]
            state = int(entry[_STATE])
            _fence()
            place = Place(slot, state, int(entry[_OFFSET]), int(entry[_LENGTH]))
            same = int(entry[_LOW]) == low and int(entry[_HIGH]) == high
            if state and same and self.holds(place):
                if place.offset + place.length > len(self._memory) - DATA_START:
                    raise _foreign(self.path)
                return place
        return None

    def holds(self, place: Place) -> bool:
        """Whether what was found is still published, so that what was read meanwhile is what was written."""
        _fence()
        return int(self._table[place.slot, _STATE]) == place.state

    def view(self, place: Place) -> memoryview:
        """The bytes of a value, in place."""
        return self.memory(place.offset, place.length).toreadonly()

    def memory(self, offset: int, length: int) -> memoryview:
        """Bytes of the data, in place."""
        return memoryview(self._memory)[DATA_START + offset : DATA_START + offset + length]

    def close(self) -> None:
        """Let go of the mapping; memory that someone still looks at stays mapped until they no longer do."""
        del self._header, self._table, self.bell
        with suppress(BufferError):
            self._memory.close()


class OwnSegment(Segment):
    """A segment as its writer sees it."""

    def __init__(self, path: Path, memory: mmap.mmap, data_bytes: int) -> None:
        super().__init__(path, memory)
        self.arena = Arena(data_bytes)
        self.data_bytes = data_bytes
        self.address: int = np.frombuffer(memory, np.uint8, 1, DATA_START).__array_interface__["data"][0]
        self._free = list(range(ENTRIES - 1, -1, -1))
        self._publications = 0

    @classmethod
    def create(cls, path: Path, data_bytes: int) -> OwnSegment:
        """Make a segment with all of its memory, so that none can be missing later.

        Raises:
            OSError: the medium has no such room; nothing is left of it.
        """
        size = DATA_START + data_bytes
        # Under another name until it is whole: whoever finds it may read it.
        unfinished = path.with_name(f".{path.name}")
        file = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _fill(file, size)
            memory = mmap.mmap(file, size)
            np.frombuffer(memory, np.uint64, 1)[:] = LAYOUT
            unfinished.rename(path)
            return cls(path, memory, data_bytes)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        finally:
            os.close(file)

    @property
    def has_entry(self) -> bool:
        """Whether one more value can be published here."""
        return bool(self._free)

    def publish(self, digest: Digest, offset: int, length: int) -> int:
        """Make bytes of this segment the value of a key; returns the slot that `withdraw` wants."""
        slot = self._free.pop()
        self._publications += 1
        self._table[slot, _LOW : _LENGTH + 1] = (*digest, offset, length)
        self._header[_USED] = max(int(self._header[_USED]), slot + 1)
        _fence()
        self._table[slot, _STATE] = self._publications
        _fence()
        return slot

    def withdraw(self, slot: int) -> None:
        """End a publication, before its bytes change."""
        self._table[slot, _STATE] = 0
        _fence()
        self._free.append(slot)

    def announce(self, segments: int) -> None:
        """Say, in the writer's first segment, how many there are."""
        self._header[_SEGMENTS] = segments

    def retire(self) -> None:
        """Say that the writer is gone, wake who waits for it, and remove the file."""
        self._header[_CLOSED] = 1
        self.bell.ring()
        self.path.unlink(missing_ok=True)
        self.close()


def _foreign(path: Path) -> ChannelError:
    return ChannelError(
        f"{path} was not written by this version of smlt",
        "do all workers run the same one, and does nothing else write there?",
    )


def _fill(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    zeros = memoryview(bytes(1 << 20))
    while size:
        size -= os.write(file, zeros[:size])
