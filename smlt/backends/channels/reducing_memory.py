"""Memory of the reducing store: bounded, and handed out again as it is, since fresh pages cost more than a sum."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from smlt.core.units import format_bytes

Bytes = NDArray[np.uint8]

HANG_UP_S = 1.0
"""So often a thread that waits, for memory or for others, looks whether its own client is still there."""

ALIGNMENT = 64
MOST_KEPT = 256


class Memory:
    """At most so many bytes, handed out as buffers."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.news = threading.Condition()
        """Of buffers that were given back."""
        self._used = 0
        self._kept: list[Bytes] = []

    @property
    def used_bytes(self) -> int:
        """In buffers that are handed out."""
        return self._used

    def __str__(self) -> str:
        return f"{format_bytes(self.limit_bytes)}, {format_bytes(self._used)} of it in use"

    def take(self, size_bytes: int) -> Bytes | None:
        """A buffer whose bytes may be anything, or None where that would be too much."""
        taken = self.take_all([size_bytes])
        return taken[0] if taken else None

    def take_all(self, sizes_bytes: Sequence[int]) -> list[Bytes] | None:
        """As many buffers, or none at all."""
        with self.news:
            if self._used + sum(sizes_bytes) > self.limit_bytes:
                return None
            self._used += sum(sizes_bytes)
            return [self._buffer(size) for size in sizes_bytes]

    def give(self, buffer: Bytes, *, keep: bool = True) -> None:
        """Take a buffer back, to be handed out again if it may be kept."""
        with self.news:
            self._used -= buffer.nbytes
            if keep:
                self._kept.append(buffer)
                self._forget()
            self.news.notify_all()

    def _buffer(self, size_bytes: int) -> Bytes:
        for number, kept in enumerate(reversed(self._kept), start=1):
            if kept.nbytes == size_bytes:
                del self._kept[-number]
                return kept
        self._forget()
        fresh = np.empty(size_bytes + ALIGNMENT, np.uint8)
        start = -fresh.ctypes.data % ALIGNMENT
        return fresh[start : start + size_bytes]

    def _forget(self) -> None:
        """Forget what was kept longest, until that and what is handed out are within the limit."""
        over = self._used + sum(kept.nbytes for kept in self._kept) - self.limit_bytes
        while self._kept and (over > 0 or len(self._kept) > MOST_KEPT):
            over -= self._kept.pop(0).nbytes
