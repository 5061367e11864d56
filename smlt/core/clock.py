"""The time that a run goes by: this machine's, or a virtual one in which nothing has to be waited for."""

from __future__ import annotations

import time


class Clock:
    """This machine's time. A backend whose functions live in another time gives another clock."""

    def monotonic(self) -> float:
        """Seconds that never go back, from some beginning."""
        return time.monotonic()

    def time(self) -> float:
        """Seconds since the Unix epoch."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Let so many seconds pass."""
        time.sleep(seconds)
