"""A clock that moves only when told to, and its sleep."""

from __future__ import annotations

from collections.abc import Callable


class FakeClock:
    """Seconds; called for the time. `sleep` moves it on, and `on_sleep` sees each sleep before it ends."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self.on_sleep: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def sleep(self, seconds: float) -> None:
        self.on_sleep()
        self.now += seconds
