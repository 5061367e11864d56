"""What the reducing store holds for its clients: values, sums under way, and counts of what was asked. No sockets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from smlt.backends.channels.reducing_memory import HANG_UP_S, Memory
from smlt.backends.channels.reducing_protocol import STORE_BYTES
from smlt.backends.channels.reducing_sums import CHUNK_BYTES, Part, Sum, Terms, buffers_for
from smlt.backends.channels.reducing_values import Values
from smlt.core.errors import ChannelError
from smlt.core.storage import ChannelStats
from smlt.core.units import format_bytes

LINGER_S = 30.0
"""What a client left, and a sum that nobody attends to, stays so long: the client may only have lost its connection."""

MOST_REMEMBERED = 4096
"""Keys of finished sums that are known as such."""


@dataclass(frozen=True)
class StoreStats:
    """The answer to STATS: what this client has asked for, and how full the store is."""

    requests: dict[str, int]
    bytes_up: int
    bytes_down: int
    used_bytes: int
    limit_bytes: int
    clients: int


@dataclass
class Client:
    """One client, over all its connections."""

    name: bytes
    stats: ChannelStats = field(default_factory=ChannelStats)
    connections: int = 0
    left_at: float = 0.0


class Store:
    """Used by the threads of all connections.

    Args:
        memory_bytes: most that values and sums take together.
        linger_s: see `LINGER_S`.
        chunk_bytes: contributions are added in such pieces; a multiple of 8.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        memory_bytes: int,
        *,
        linger_s: float = LINGER_S,
        chunk_bytes: int = CHUNK_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.identity = os.urandom(STORE_BYTES)
        """No other store, and none that is started in its place, has the same."""
        self.memory = Memory(memory_bytes)
        self.values = Values(self.memory)
        self._linger_s, self._chunk_bytes, self._clock = linger_s, chunk_bytes, clock
        self._clients: dict[bytes, Client] = {}
        self._sums: dict[str, Sum] = {}
        self._unattended: dict[str, float] = {}
        self._finished: dict[str, None] = {}
        self._lock = self.memory.news

    def enter(self, name: bytes) -> Client:
        """A connection of this client begins."""
        with self._lock:
            client = self._clients.setdefault(name, Client(name))
            client.connections += 1
            return client

    def depart(self, client: Client) -> None:
        """A connection of this client is over."""
        with self._lock:
            client.connections -= 1
            client.left_at = self._clock()

    def stats(self, client: Client) -> StoreStats:
        """What this client has asked for so far."""
        mine, memory = client.stats, self.memory
        return StoreStats(
            dict(mine.requests), mine.bytes_up, mine.bytes_down,
            memory.used_bytes, memory.limit_bytes, len(self._clients),
        )  # fmt: skip

    def join(self, key: str, terms: Terms, part: Part) -> Sum:
        """Let a connection take part in a sum, which begins with the first one.

        Waits for memory that other sums take: a sum that has begun needs no more to end, so some will end.

        Raises:
            ChannelError: ranks disagree on the terms, it is summed already, or it is larger than the memory.
            ConnectionAbortedError: the connection is lost, or another took its place.
        """
        with self._lock:
            while (found := self._sums.get(key) or self._begin(key, terms, part.rank)) is None:
                if not self._lock.wait(HANG_UP_S) and part.connection.is_lost():
                    raise ConnectionAbortedError("the other side has hung up")
            self._unattended.pop(key, None)
        if found.terms != terms:
            failure = ChannelError(
                f"ranks sum different things: rank {part.rank} {terms}; rank {found.first_rank} {found.terms}",
                "do all ranks build the same model?",
            )
            found.fail(failure)
            raise failure
        found.join(part)
        return found

    def leave(self, key: str, found: Sum, part: Part) -> None:
        """The reader or the writer of a part has done with it."""
        found.leave(part)
        self._settle(key, found)

    def done(self, key: str, rank: int) -> Terms | None:
        """A rank has received the whole sum; returns its terms, or None where no such sum is known."""
        with self._lock:
            found = self._sums.get(key)
            if found is None:
                return None
            found.done.add(rank)
        self._settle(key, found)
        return found.terms

    def sweep(self) -> None:
        """Forget what clients left that are gone for long, and sums that nobody has attended to for long."""
        now = self._clock()
        with self._lock:
            known = self._clients
            gone = {
                name for name in known if not known[name].connections and now - known[name].left_at > self._linger_s
            }
            for name in gone:
                del known[name]
            for key, found in list(self._sums.items()):
                if found.is_attended:
                    self._unattended.pop(key, None)
                elif now - self._unattended.setdefault(key, now) > self._linger_s:
                    del self._sums[key], self._unattended[key]
                    found.release(keep=False)
        self.values.discard_all(gone)

    def _begin(self, key: str, terms: Terms, rank: int) -> Sum | None:
        if key in self._finished:
            raise ChannelError("it was summed already")
        sizes = buffers_for(terms, self._chunk_bytes)
        if sum(sizes) > self.memory.limit_bytes:
            raise ChannelError(
                f"a sum of {terms} needs {format_bytes(sum(sizes))}, the store has {self.memory}",
                "start it with more --memory",
            )
        buffers = self.memory.take_all(sizes)
        if buffers is None and not self._sums:
            raise ChannelError(f"no room for a sum of {terms} beside values: the store has {self.memory}")
        if buffers is None:
            return None
        self._sums[key] = Sum(terms, rank, self.memory, buffers, self._chunk_bytes)
        return self._sums[key]

    def _settle(self, key: str, found: Sum) -> None:
        with self._lock:
            if found.is_over and self._sums.get(key) is found:
                del self._sums[key]
                found.release(keep=True)
                self._finished[key] = None
                if len(self._finished) > MOST_REMEMBERED:
                    del self._finished[next(iter(self._finished))]
