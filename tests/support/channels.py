"""A Channel in memory whose values are its writers' own buffers, so that one reused too early does not go unnoticed."""

from __future__ import annotations

import threading
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from smlt.core.errors import ChannelError, PeerLost
from smlt.core.storage import Buffer, Channel, ChannelCapabilities, ChannelKey


@dataclass
class _Value:
    memory: memoryview
    checksum: int
    readers: int | None = None


class Room:
    """Where the clients of one channel meet.

    Attributes:
        before_read: told reader and key before a value is looked at, outside the lock; may wait with `until`.
        patience_s: caps what a reader waits for a value; 0 to give up at once.
        lies: replaces the bytes of a key for its readers.
    """

    def __init__(self, patience_s: float = 60.0) -> None:
        self.news = threading.Condition()
        self.values: dict[ChannelKey, _Value] = {}
        self.waiting: dict[int, ChannelKey] = {}
        self.closed: set[int] = set()
        self.before_read: Callable[[int, ChannelKey], None] = lambda rank, key: None
        self.patience_s = patience_s
        self.lies: dict[ChannelKey, bytes] = {}

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something of the other ranks."""
        with self.news:
            assert self.news.wait_for(condition, timeout=60.0), "the other ranks never came there"

    def published(self) -> list[ChannelKey]:
        """What is published now."""
        with self.news:
            return sorted(self.values)


class MemoryChannel(Channel):
    """One rank's client. With `shows`, values are seen in place; else they are copied out as from a distant store.

    A value that changes between its `put` and its `discard` makes `discard`, `close` or a read fail; the memory of a
    discarded one is overwritten at once.
    """

    def __init__(self, room: Room, rank: int, *, shows: bool = True, ranged: bool = True) -> None:
        super().__init__()
        self.capabilities = ChannelCapabilities(
            ranged=ranged, reduces=False, max_value_bytes=None, latency_s=1e-6, in_place=shows
        )
        self._room, self._rank, self._shows = room, rank, shows
        self._own: set[ChannelKey] = set()
        self._allocated: list[memoryview] = []
        self.reserved_bytes = 0

    def _do_reserve(self, size_bytes: int) -> None:
        self.reserved_bytes += size_bytes

    def _do_allocate(self, size_bytes: int) -> memoryview:
        memory = super()._do_allocate(size_bytes)
        self._allocated.append(memory)
        return memory

    def _do_put(self, key: ChannelKey, parts: Sequence[Buffer], readers: int | None) -> None:
        lent = len(parts) == 1 and any(parts[0] is memory for memory in self._allocated)
        memory = memoryview(parts[0] if lent else bytearray(b"".join(bytes(part) for part in parts)))
        with self._room.news:
            if key in self._own:
                raise ChannelError(f"{key} was written already")
            self._own.add(key)
            self._room.values[key] = _Value(memory, zlib.crc32(memory), readers)
            self._room.news.notify_all()

    def _do_get_into(self, key: ChannelKey, out: memoryview, timeout_s: float, offset: int) -> int:
        value = self._await(key, timeout_s)[offset : offset + out.nbytes]
        out.cast("B")[: value.nbytes] = value
        return value.nbytes

    def _do_get(self, key: ChannelKey, timeout_s: float) -> bytes:
        return bytes(self._await(key, timeout_s))

    def _do_view(self, key: ChannelKey, timeout_s: float, offset: int, length: int | None) -> memoryview | None:
        stop = None if length is None else offset + length
        return self._await(key, timeout_s)[offset:stop].toreadonly() if self._shows else None

    def _do_discard(self, key: ChannelKey) -> None:
        with self._room.news:
            value = self._room.values.pop(key, None)
        if value is not None:
            _check(key, value)
            value.memory[:] = b"\xa5" * value.memory.nbytes

    def _do_close(self) -> None:
        """What was published stays: whoever leaves last words and goes is heard."""
        with self._room.news:
            for key in self._own & self._room.values.keys():
                _check(key, self._room.values[key])
            self._room.closed.add(self._rank)
            self._room.news.notify_all()

    def _await(self, key: ChannelKey, timeout_s: float) -> memoryview:
        self._room.before_read(self._rank, key)
        with self._room.news:
            self._room.waiting[self._rank] = key
            self._room.news.notify_all()
            there = self._room.news.wait_for(lambda: key in self._room.values, min(timeout_s, self._room.patience_s))
            del self._room.waiting[self._rank]
            if not there:
                raise PeerLost(f"{key} did not come")
            value = self._room.values[key]
            if value.readers is not None:
                value.readers -= 1
                if value.readers == 0:
                    del self._room.values[key]
        if key in self._room.lies:
            return memoryview(self._room.lies[key])
        _check(key, value)
        return value.memory


def _check(key: ChannelKey, value: _Value) -> None:
    if zlib.crc32(value.memory) != value.checksum:
        raise AssertionError(f"the memory of {key} was written to while it was published")


class Patient:
    """A patience that gives up once a value was looked for in vain so often that no busy machine explains it."""

    def __init__(self, looks: int = 300) -> None:
        self._looks = looks
        self._counts: Counter[tuple[str, int, int]] = Counter()

    def __call__(self, piece: str, peer: int) -> None:
        self._counts[piece, peer, threading.get_ident()] += 1
        assert max(self._counts.values()) < self._looks, f"waited in vain for {piece} of rank {peer}"


def in_threads(work: Callable[[int], Any], world_size: int) -> list[Any]:
    """What `work(rank)` returned on each rank, or the exception that it raised, in rank order."""
    outcomes: list[Any] = [None] * world_size

    def run(rank: int) -> None:
        try:
            outcomes[rank] = work(rank)
        except BaseException as error:
            outcomes[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes
