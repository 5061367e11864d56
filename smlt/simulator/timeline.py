"""Virtual time: a heap of what will happen."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

Action = Callable[..., None]


class Timeline:
    """Events in their order; of those at the same time the one that was added first comes first.

    Attributes:
        now: virtual seconds since the beginning.
        handled: events so far.
    """

    __slots__ = ("_heap", "_number", "handled", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self.handled = 0
        self._number = 0
        self._heap: list[tuple[float, int, Action, tuple[Any, ...]]] = []

    def after(self, delay_s: float, action: Action, *args: Any) -> None:
        """Call `action` in so many virtual seconds."""
        self._number += 1
        heappush(self._heap, (self.now + delay_s, self._number, action, args))

    def run(self, until_s: float, is_over: Callable[[], bool]) -> None:
        """Let things happen until it is over, nothing is left to happen, or the time has come."""
        heap = self._heap
        while heap and not is_over():
            if heap[0][0] > until_s:
                self.now = until_s
                return
            self.now, _, action, args = heappop(heap)
            self.handled += 1
            action(*args)
