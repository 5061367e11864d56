"""Channel in memory that the ranks on one machine share: a put is an entry in a table, a view is the writer's bytes."""

from __future__ import annotations

import hashlib
import os
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smlt.backends.channels.arena import aligned
from smlt.backends.channels.doorbell import Doorbell, wait_until
from smlt.backends.channels.segment import Digest, OwnSegment, Place, Segment
from smlt.backends.channels.segment_files import Address, SegmentFiles, new_stem
from smlt.backends.file_store import UNLISTED, folder_of
from smlt.core.backend import RunPlace
from smlt.core.errors import ChannelError, PeerLost
from smlt.core.storage import Buffer, Channel, ChannelCapabilities, ChannelKey, ChannelSpec

SHARED_MEMORY = Path("/dev/shm")
SPILL = "spill"
"""Option of the spec: the URL of a folder for what /dev/shm has no room for."""

LEAST_SEGMENT_BYTES = 1 << 20
MOST_AHEAD_BYTES = 64 << 20
"""Segments grow as the whole does, so that there are few, but by no more than this beyond what is asked for."""

LOOK_AGAIN_S = 0.1
"""How long a bell is trusted: then one looks whether its writer was replaced by another."""

Bytes = NDArray[np.uint8]


def spec_for(place: RunPlace) -> ChannelSpec:
    """Where the ranks of a run meet: in /dev/shm, else (macOS) in its folder, which also takes what /dev/shm cannot."""
    run = place.runs_dir.absolute() / place.run
    own = (run / UNLISTED / "shm").as_uri()
    if not (SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK | os.X_OK)):
        return ChannelSpec("shared_memory", own)
    # Runs of one name in two folders do not meet.
    mark = hashlib.blake2b(os.fsencode(run), digest_size=6).hexdigest()
    return ChannelSpec("shared_memory", (SHARED_MEMORY / f"smlt-{place.run}-{mark}").as_uri(), {SPILL: own})


def sweep(place: RunPlace) -> list[str]:
    """Remove what the ranks of a run left, whether they live or not; returns what was removed."""
    return _files_of(spec_for(place)).sweep()


def _files_of(spec: ChannelSpec) -> SegmentFiles:
    urls = [spec.url, *([spec.options[SPILL]] if SPILL in spec.options else [])]
    return SegmentFiles(tuple(folder_of(url) for url in urls))


@dataclass(frozen=True)
class _Published:
    """Where a value of ours is; `is_lent`: in memory that `allocate` gave, which stays with its borrower."""

    segment: OwnSegment
    slot: int
    offset: int
    is_lent: bool


class SharedMemoryChannel(Channel):
    """Each client writes into segments of its own and reads those of others in place.

    What `allocate` gave is the caller's until the channel is closed: discard a key, and build the next value in it.
    A value that is discarded while it is copied raises `ChannelError`; memory under a `view` then changes silently.

    Args:
        spec: its URL is a folder, and the option "spill" another for what finds no room in the first.
        generation, round_number, rank: the address of every key that this client writes.
    """

    capabilities = ChannelCapabilities(ranged=True, reduces=False, max_value_bytes=None, latency_s=20e-6, in_place=True)

    def __init__(self, spec: ChannelSpec, generation: int, round_number: int, rank: int) -> None:
        super().__init__()
        self._files = _files_of(spec)
        self._address: Address = (generation, round_number, rank)
        self._stem = new_stem(self._address)
        self._own: list[OwnSegment] = []
        self._lent: list[tuple[int, int, OwnSegment]] = []  # address, size, segment; by address
        self._published: dict[ChannelKey, _Published] = {}
        self._writers: dict[Address, _Writer] = {}

    def _do_reserve(self, size_bytes: int) -> None:
        if sum(segment.data_bytes for segment in self._own) < size_bytes:
            # Every value is rounded up a little, and small ones come beside the large.
            self._grow(size_bytes + size_bytes // 256 + LEAST_SEGMENT_BYTES)

    def _do_allocate(self, size_bytes: int) -> memoryview:
        segment, offset = self._room(size_bytes)
        memory = segment.memory(offset, size_bytes)
        if size_bytes:
            np.frombuffer(memory, np.uint8).fill(0)
            self._lent.append((segment.address + offset, size_bytes, segment))
            self._lent.sort(key=lambda lent: lent[0])
        return memory

    def _do_put(self, key: ChannelKey, parts: Sequence[Buffer], readers: int | None) -> None:
        if (key.generation, key.round, key.rank) != self._address:
            raise ChannelError(f"{key} is not a key of rank {self._address[2]} in its round")
        if key in self._published:
            raise ChannelError(f"{key} was written already")
        arrays = [np.frombuffer(part, np.uint8) for part in parts if memoryview(part).nbytes]
        lent = self._find_lent(arrays[0]) if len(arrays) == 1 else None
        segment, offset = lent or self._copied(arrays)
        slot = segment.publish(_digest(key), offset, sum(array.nbytes for array in arrays))
        self._published[key] = _Published(segment, slot, offset, lent is not None)
        self._own[0].bell.ring()

    def _do_get_into(self, key: ChannelKey, out: memoryview, timeout_s: float, offset: int) -> int:
        segment, place = self._await(key, timeout_s)
        length = max(0, min(out.nbytes, place.length - offset))
        if length:
            source = np.frombuffer(segment.view(place), np.uint8, length, offset)
            np.copyto(np.frombuffer(out, np.uint8, length), source)
        self._check_held(key, segment, place)
        return length

    def _do_get(self, key: ChannelKey, timeout_s: float) -> bytes:
        segment, place = self._await(key, timeout_s)
        value = bytes(segment.view(place))
        self._check_held(key, segment, place)
        return value

    def _do_view(self, key: ChannelKey, timeout_s: float, offset: int, length: int | None) -> memoryview:
        segment, place = self._await(key, timeout_s)
        return segment.view(place)[offset : None if length is None else offset + length]

    def _do_discard(self, key: ChannelKey) -> None:
        value = self._published.pop(key, None)
        if value is None:
            return
        value.segment.withdraw(value.slot)
        if not value.is_lent:
            value.segment.arena.free(value.offset)

    def _do_close(self) -> None:
        self._writers.pop(self._address, None)
        for writer in self._writers.values():
            writer.close()
        for segment in reversed(self._own):  # the first last: it tells the others
            segment.retire()
        if self._own:
            self._files.leave()
        self._own, self._lent, self._published, self._writers = [], [], {}, {}

    def _room(self, size_bytes: int) -> tuple[OwnSegment, int]:
        for segment in self._own:
            if segment.has_entry:
                offset = segment.arena.allocate(size_bytes)
                if offset is not None:
                    return segment, offset
        so_far = sum(segment.data_bytes for segment in self._own)
        segment = self._grow(max(size_bytes, LEAST_SEGMENT_BYTES, min(so_far, MOST_AHEAD_BYTES)))
        offset = segment.arena.allocate(size_bytes)
        assert offset is not None
        return segment, offset

    def _grow(self, data_bytes: int) -> OwnSegment:
        if not self._own:
            self._files.bury_predecessors(self._address)
        segment = self._files.create(self._stem, len(self._own), aligned(data_bytes))
        self._own.append(segment)
        self._own[0].announce(len(self._own))
        self._writers[self._address] = _Writer(self._files, self._stem, list(self._own))
        return segment

    def _copied(self, arrays: Sequence[Bytes]) -> tuple[OwnSegment, int]:
        size = sum(array.nbytes for array in arrays)
        segment, offset = self._room(size)
        at = offset
        for array in arrays:
            np.copyto(np.frombuffer(segment.memory(at, array.nbytes), np.uint8), array)
            at += array.nbytes
        return segment, offset

    def _find_lent(self, array: Bytes) -> tuple[OwnSegment, int] | None:
        """The segment and offset of memory that `allocate` gave and a value can be published from."""
        address: int = array.__array_interface__["data"][0]
        at = bisect_right(self._lent, address, key=lambda lent: lent[0]) - 1
        if at < 0:
            return None
        start, size, segment = self._lent[at]
        if address + array.nbytes > start + size or not segment.has_entry:
            return None
        return segment, address - segment.address

    def _await(self, key: ChannelKey, timeout_s: float) -> tuple[Segment, Place]:
        digest, address = _digest(key), (key.generation, key.round, key.rank)
        deadline = time.monotonic() + timeout_s
        while True:
            writer = self._writers.get(address) or self._meet(address)
            seen = writer.bell.read() if writer else 0
            found = writer.find(digest) if writer else None
            if found is not None:
                return found
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise PeerLost(f"rank {key.rank} did not send {key} within {timeout_s:g} s", "is its process alive?")
            if writer is None:
                wait_until(lambda: self._files.newest_stem(address) is not None, left_s)
                continue
            writer.bell.wait(seen, min(left_s, LOOK_AGAIN_S))
            if writer.bell.read() == seen or writer.is_gone:
                self._look_again(address, writer)

    def _meet(self, address: Address) -> _Writer | None:
        stem = self._files.newest_stem(address)
        first = self._files.open(stem, 0) if stem else None
        if stem is None or first is None:
            return None
        self._writers[address] = writer = _Writer(self._files, stem, [first])
        return writer

    def _look_again(self, address: Address, writer: _Writer) -> None:
        """Forget a writer in whose place another is; what one wrote that is only gone stays readable."""
        if address != self._address and self._files.newest_stem(address) not in (None, writer.stem):
            del self._writers[address]
            writer.close()

    def _check_held(self, key: ChannelKey, segment: Segment, place: Place) -> None:
        if not segment.holds(place):
            raise ChannelError(f"{key} was discarded by rank {key.rank} while rank {self._address[2]} read it")


class _Writer:
    """The segments of one writer, mapped as it adds them."""

    def __init__(self, files: SegmentFiles, stem: str, segments: list[Segment]) -> None:
        self.stem = stem
        self._files = files
        self._segments = segments

    @property
    def bell(self) -> Doorbell:
        """Rung at every put."""
        return self._segments[0].bell

    @property
    def is_gone(self) -> bool:
        """Whether it said so."""
        return self._segments[0].is_closed

    def find(self, digest: Digest) -> tuple[Segment, Place] | None:
        """Where a value is, if it is there."""
        while len(self._segments) < self._segments[0].segments:
            another = self._files.open(self.stem, len(self._segments))
            if another is None:
                break  # the writer is gone, and its files with it
            self._segments.append(another)
        for segment in self._segments:
            place = segment.find(digest)
            if place is not None:
                return segment, place
        return None

    def close(self) -> None:
        """Let go of its segments."""
        for segment in self._segments:
            segment.close()


def _digest(key: ChannelKey) -> Digest:
    digest = hashlib.blake2b(str(key).encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
