"""Channel in an object store: every cloud has one, there is nothing to start, and nothing is ever listed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from urllib.parse import quote

from smlt.backends.channels.object_ahead import ReadAhead
from smlt.core.errors import ChannelError, NotFound, PeerLost
from smlt.core.plugins import load_registry
from smlt.core.storage import Buffer, Channel, ChannelCapabilities, ChannelKey, ChannelSpec, ObjectStore, StoreSpec

FIRST_PAUSE_S = 0.5e-3
LONGEST_PAUSE_S = 50e-3
PAUSE_SHARE = 1 / 8
"""Of the time waited so far: a value is found at most so much later than it came, and who waits long asks seldom."""

STORE = "store"
"""Option of the spec: the kind of its object store; the other options are the store's own."""


def spec_for(store: StoreSpec) -> ChannelSpec:
    """The channel in this store."""
    return ChannelSpec("object", store.url, {STORE: store.kind, **store.options})


class ObjectChannel(Channel):
    """A value is an object; who waits for one asks for it again, after pauses that grow from 0.5 ms to 50 ms.

    Meant for few, large values, as of local SGD: each costs a request and its latency. What is expected in ranges is
    asked for at once, where the store is better asked so.

    Args:
        spec: as `spec_for` makes it.
        generation, round_number, rank: the address of every key that this client writes.
        clock, sleep: in seconds.
        open_store: opens the spec's store; None for the registry to do so.
    """

    capabilities = ChannelCapabilities(ranged=True, reduces=False, max_value_bytes=None, latency_s=1e-3)

    def __init__(
        self,
        spec: ChannelSpec,
        generation: int,
        round_number: int,
        rank: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        open_store: Callable[[StoreSpec], ObjectStore] | None = None,
    ) -> None:
        super().__init__()
        options = {name: value for name, value in spec.options.items() if name != STORE}
        open_store = open_store or load_registry().open_store
        self._store = open_store(StoreSpec(spec.options[STORE], spec.url, options))
        self._ahead = ReadAhead(self._read, self._store.concurrency)
        self._address = (generation, round_number, rank)
        self._clock, self._sleep = clock, sleep
        self._published: set[ChannelKey] = set()
        self._missed: tuple[ChannelKey, float] | None = None

    def _do_put(self, key: ChannelKey, parts: Sequence[Buffer], readers: int | None) -> None:
        if (key.generation, key.round, key.rank) != self._address:
            raise ChannelError(f"{key} is not a key of rank {self._address[2]} in its round")
        if key in self._published:
            raise ChannelError(f"{key} was written already")
        self._store.put(_object_key(key), *parts)
        self._published.add(key)

    def _do_get_into(self, key: ChannelKey, out: memoryview, timeout_s: float, offset: int) -> int:
        value = self._await(key, timeout_s, offset, out.nbytes)
        out.cast("B")[: len(value)] = value
        return len(value)

    def _do_get(self, key: ChannelKey, timeout_s: float) -> bytes:
        return bytes(self._await(key, timeout_s, 0, None))

    def _do_view(self, key: ChannelKey, timeout_s: float, offset: int, length: int | None) -> memoryview:
        return self._await(key, timeout_s, offset, length)

    def _do_expect_ranges(self, reads: Sequence[tuple[ChannelKey, int, int]]) -> None:
        self._ahead.expect((_object_key(key), offset, length) for key, offset, length in reads)

    def _do_discard(self, key: ChannelKey) -> None:
        if key in self._published:
            self._published.remove(key)
            self._store.delete(_object_key(key), keep_room=True)

    def _do_close(self) -> None:
        """Leave the last words where they are."""
        self._ahead.close()
        self._store.close()

    def _await(self, key: ChannelKey, timeout_s: float, start: int, length: int | None) -> memoryview:
        began = since = self._clock()
        if self._missed is not None and self._missed[0] == key:
            since = self._missed[1]  # who comes again has been waiting all the time
        while True:
            try:
                return self._ahead.take((_object_key(key), start, length))
            except NotFound:
                now = self._clock()
                left_s = began + timeout_s - now
                if left_s <= 0:
                    self._missed = (key, since)
                    raise PeerLost(
                        f"rank {key.rank} did not send {key} within {timeout_s:g} s", "is its process alive?"
                    ) from None
            self._sleep(min(left_s, LONGEST_PAUSE_S, max(FIRST_PAUSE_S, (now - since) * PAUSE_SHARE)))

    def _read(self, key: str, start: int, length: int | None) -> memoryview:
        return self._store.view(key, start=start, length=length)


def _object_key(key: ChannelKey) -> str:
    """One object a value, none of whose names is the beginning of another's path."""
    return f"{key.generation}/{key.round}/{key.step}/{quote(key.piece, safe='')}.{key.rank}"
