"""Values of the reducing store: written once, read by whoever waits for them, forgotten when all have read them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from smlt.backends.channels.reducing_memory import HANG_UP_S, Bytes, Memory
from smlt.core.errors import ChannelError
from smlt.core.units import format_bytes


@dataclass
class _Value:
    data: Bytes
    readers: int | None
    owner: bytes


class Values:
    """Values by key, for the threads of all connections; their bytes count in `memory`."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._values: dict[str, _Value] = {}
        self._news = threading.Condition()

    def room_for(self, size_bytes: int) -> Bytes:
        """Memory for a value.

        Raises:
            ChannelError: there is no more.
        """
        room = self._memory.take(size_bytes)
        if room is None:
            raise ChannelError(
                f"the store has no room for a value of {format_bytes(size_bytes)}: {self._memory}",
                "start it with more --memory",
            )
        return room

    def put(self, key: str, data: Bytes, readers: int | None, owner: bytes) -> None:
        """Publish a value; its owner may do so again, not knowing whether it has.

        Raises:
            ChannelError: another client has written this key.
        """
        with self._news:
            known = self._values.setdefault(key, _Value(data, readers, owner))
            self._news.notify_all()
        if known.data is not data:
            self._memory.give(data, keep=False)
            if known.owner != owner:
                raise ChannelError("it was written already")

    def read(self, key: str, timeout_s: float, is_lost: Callable[[], bool]) -> Bytes | None:
        """A value, once it is there, for one of its readers; None if it is not there in time.

        Raises:
            ConnectionAbortedError: the reader has hung up.
        """
        with self._news:
            left_s = timeout_s
            while key not in self._values and left_s > 0:
                if not self._news.wait_for(lambda: key in self._values, min(left_s, HANG_UP_S)):
                    left_s -= HANG_UP_S
                if is_lost():
                    raise ConnectionAbortedError("the reader has hung up")
            value = self._values.get(key)
            if value is None:
                return None
            if value.readers is not None:
                value.readers -= 1
                if value.readers <= 0:
                    self._forget(key)
            return value.data

    def discard(self, key: str, owner: bytes) -> None:
        """Forget a value of this owner, if there is one."""
        with self._news:
            if key in self._values and self._values[key].owner == owner:
                self._forget(key)

    def discard_all(self, owners: set[bytes]) -> None:
        """Forget all values of these owners."""
        with self._news:
            for key in [key for key, value in self._values.items() if value.owner in owners]:
                self._forget(key)

    def _forget(self, key: str) -> None:
        self._memory.give(self._values.pop(key).data, keep=False)
