"""Sums that the reducing store is adding up: contributions come in any order and are added in rank order.

No sockets: whoever has a contribution brings a function that fills a buffer, and takes the sum as it grows. Memory is
bounded and nothing waits in a circle: a chunk that came before its turn is kept while there is memory; else its reader
waits, reading no further, for the ranks before it at the same chunk, down to rank 0, whose reader never waits. What a
sum cannot do without is taken when it begins, all at once or not at all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from smlt.backends.channels.reducing_memory import HANG_UP_S, Bytes, Memory
from smlt.core.errors import ChannelError

CHUNK_BYTES = 2 << 20

Fill = Callable[[memoryview], None]
"""Fills a buffer with what comes next of a contribution; raises OSError when its connection is lost."""


class Connection(Protocol):
    """What a sum wants to know of a connection: one that was made later has a higher `serial`."""

    serial: int

    def abort(self) -> None:
        """Break it, so that whoever waits for it returns."""

    def is_lost(self) -> bool:
        """Whether the other side has hung up."""


@dataclass(frozen=True)
class Terms:
    """What all ranks of a sum have to agree on."""

    dtype: str
    size_bytes: int
    ranks: int
    header_bytes: int

    def __str__(self) -> str:
        dtype = np.dtype(self.dtype)
        elements = self.size_bytes // dtype.itemsize
        return f"{elements} x {dtype.name} over {self.ranks} ranks, headers of {self.header_bytes} bytes"


class Part:
    """One connection's share in a sum: it contributes, from byte `start` on, and is sent the sum from there.

    Args:
        rank, header, start: of the request.
        connection: over which it comes and goes.
    """

    def __init__(self, rank: int, header: bytes, start: int, connection: Connection) -> None:
        self.rank, self.header, self.start, self.connection = rank, header, start, connection
        self.is_ended = False
        self.threads = 2
        """Its reader and its writer, until they have left."""


class Sum:
    """One sum over all ranks.

    Args:
        terms: of the rank that came first, `first_rank`.
        memory: where chunks that came too early find room.
        buffers: what `buffers_for` asks for.
    """

    def __init__(self, terms: Terms, first_rank: int, memory: Memory, buffers: list[Bytes], chunk_bytes: int) -> None:
        self.terms, self.first_rank = terms, first_rank
        self.done: set[int] = set()
        """Ranks that have said that they have received it all."""
        self._memory, self._chunk_bytes = memory, chunk_bytes
        self._total, *self._rooms = buffers
        self._bytes = self._total.data
        self._numbers: NDArray[np.generic] = self._total.view(terms.dtype)
        self._lock = threading.Lock()
        self._turns = [threading.Condition(self._lock) for _ in range(terms.ranks)]
        self._grown = threading.Condition(self._lock)
        self._left = threading.Condition(self._lock)
        self._parts: dict[int, Part] = {}
        self._headers: dict[int, bytes] = {}
        self._accepted = [0] * terms.ranks
        """Bytes of each rank's contribution that are here: added, or held."""
        self._summed = [0] * terms.ranks
        """Bytes up to which the contributions of all ranks up to this one are added."""
        self._held: dict[tuple[int, int], Bytes] = {}
        self._failure: ChannelError | None = None

    @property
    def is_attended(self) -> bool:
        """Whether any connection has to do with it."""
        return bool(self._parts)

    @property
    def is_over(self) -> bool:
        """Whether every rank has it and no thread looks at it."""
        return len(self.done) == self.terms.ranks and not self._parts

    def fail(self, failure: ChannelError) -> None:
        """Let all ranks, also those that come later, know why there will be no sum."""
        with self._lock:
            self._failure = self._failure or failure
            self._tell_all()

    def join(self, part: Part) -> None:
        """Begin a part; an older connection of the same rank is broken, and its threads waited for."""
        with self._lock:
            while (other := self._parts.get(part.rank)) is not None:
                if other.connection.serial > part.connection.serial:
                    raise ConnectionAbortedError("another connection contributes for this rank")
                other.is_ended = True
                other.connection.abort()
                self._tell_all()
                self._left.wait()
            if self._failure is not None:
                raise self._failure
            if self._headers.setdefault(part.rank, part.header) != part.header:
                raise ChannelError(f"rank {part.rank} contributed with another header before")
            if part.start > self._summed[-1]:
                raise ChannelError(f"the sum is not known here up to byte {part.start}", "was the store restarted?")
            self._parts[part.rank] = part
            if len(self._headers) == self.terms.ranks:
                self._grown.notify_all()

    def end(self, part: Part) -> None:
        """Say that the connection of a part is lost."""
        with self._lock:
            part.is_ended = True
            self._tell_all()

    def leave(self, part: Part) -> None:
        """Its reader, and its writer, say so when they have done with it."""
        with self._lock:
            part.threads -= 1
            if part.threads == 0:
                del self._parts[part.rank]
                self._left.notify_all()

    def contribute(self, part: Part, fill: Fill) -> None:
        """Take in a contribution, less what an earlier connection brought already.

        Raises:
            OSError: the connection was lost; the chunk that was coming in is forgotten.
            ChannelError: there will be no sum.
        """
        rank, size = part.rank, self.terms.size_bytes
        again = self._accepted[rank] - part.start
        if again > 0:
            passing = memoryview(bytearray(min(self._chunk_bytes, again)))
            for start in range(0, again, self._chunk_bytes):
                fill(passing[: again - start])
        for start in range(self._accepted[rank], size, self._chunk_bytes):
            end = min(start + self._chunk_bytes, size)
            if rank == 0:
                fill(self._bytes[start:end])
                self._accepted[0] = end
                self._advance(0, end)
            else:
                fill(self._rooms[rank - 1].data[: end - start])
                self._take_in(part, start, end)

    def results(self, part: Part) -> Iterator[bytes | memoryview]:
        """The headers of all ranks as one, once all have come, then the sum from `part.start` as it grows.

        Raises:
            ChannelError: there will be no sum.
        """
        with self._lock:
            self._await(self._grown, part, lambda: len(self._headers) == self.terms.ranks)
        yield b"".join(self._headers[rank] for rank in range(self.terms.ranks))
        sent = part.start

        def has_grown() -> bool:
            return self._summed[-1] > sent

        while sent < self.terms.size_bytes:
            with self._lock:
                self._await(self._grown, part, has_grown)
                end = self._summed[-1]
            yield self._bytes[sent:end]
            sent = end

    def _take_in(self, part: Part, start: int, end: int) -> None:
        """Add the chunk in the rank's room, or leave it there until its turn and find another room."""
        rank = part.rank
        room = self._rooms[rank - 1]

        def its_turn() -> bool:
            return self._summed[rank - 1] >= end and self._summed[rank] == start

        with self._lock:
            spare = None if its_turn() or part.is_ended else self._memory.take(room.nbytes)
            if spare is None:
                self._await(self._turns[rank], part, its_turn)
            else:
                self._held[rank, start], self._rooms[rank - 1] = room, spare
            self._accepted[rank] = end
        if spare is None:
            self._add(room, start, end)
            self._advance(rank, end)

    def _add(self, room: Bytes, start: int, end: int) -> None:
        size = self._numbers.itemsize
        numbers = self._numbers[start // size : end // size]
        with np.errstate(all="ignore"):  # what overflows is the ranks' business
            np.add(numbers, room[: end - start].view(numbers.dtype), out=numbers)

    def _advance(self, rank: int, end: int) -> None:
        """Note how far the sum up to `rank` has come, and add what was held for that."""
        news = [(rank, end)]
        while news:
            rank, end = news.pop()
            with self._lock:
                self._summed[rank] = end
                self._turns[rank].notify()
                if rank + 1 == self.terms.ranks:
                    self._grown.notify_all()
                    ready = [self._claim(rank)]
                else:
                    self._turns[rank + 1].notify()
                    ready = [self._claim(rank), self._claim(rank + 1)]
            for claimed in ready:
                if claimed is not None:
                    other, start, room = claimed
                    end = min(start + self._chunk_bytes, self.terms.size_bytes)
                    self._add(room, start, end)
                    self._memory.give(room)
                    news.append((other, end))

    def _claim(self, rank: int) -> tuple[int, int, Bytes] | None:
        """A held chunk of this rank whose turn has come."""
        start = self._summed[rank]
        end = min(start + self._chunk_bytes, self.terms.size_bytes)
        if rank == 0 or self._summed[rank - 1] < end:
            return None
        room = self._held.pop((rank, start), None)
        return None if room is None else (rank, start, room)

    def _await(self, news: threading.Condition, part: Part, condition: Callable[[], bool]) -> None:
        while not news.wait_for(lambda: condition() or part.is_ended or self._failure is not None, HANG_UP_S):
            if part.connection.is_lost():
                raise ConnectionAbortedError("the other side has hung up")
        if part.is_ended:
            raise ConnectionAbortedError("the connection was ended")
        if self._failure is not None:
            raise self._failure

    def _tell_all(self) -> None:
        for news in (*self._turns, self._grown):
            news.notify_all()

    def release(self, *, keep: bool) -> None:
        """Give all memory back, once nobody attends to it; `keep` where it can be handed out again."""
        for buffer in (self._total, *self._rooms, *self._held.values()):
            self._memory.give(buffer, keep=keep)


def buffers_for(terms: Terms, chunk_bytes: int) -> list[int]:
    """Sizes of what a sum cannot do without: the whole of it, and room for a chunk of each rank but the first."""
    return [terms.size_bytes] + [min(chunk_bytes, terms.size_bytes)] * (terms.ranks - 1)
