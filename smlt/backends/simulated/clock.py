"""Virtual time as a run's clock: what sleeps lets the simulated world go on."""

from __future__ import annotations

import time
from collections.abc import Callable

from smlt.core.clock import Clock
from smlt.simulator.timeline import Timeline


class VirtualClock(Clock):
    """Goes on only where somebody sleeps.

    Attributes:
        timeline: what happens meanwhile.
        before_sleep: called first, for what the world must know of the sleeper.
    """

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.before_sleep: Callable[[], None] = lambda: None
        self._began = time.time()

    def monotonic(self) -> float:
        """Virtual seconds since the beginning."""
        return self.timeline.now

    def time(self) -> float:
        """The time of day at which the run began, and the virtual seconds since."""
        return self._began + self.timeline.now

    def sleep(self, seconds: float) -> None:
        """Let happen what happens in so many virtual seconds."""
        self.before_sleep()
        until_s = self.timeline.now + seconds
        self.timeline.run(until_s, lambda: False)
        self.timeline.now = until_s
