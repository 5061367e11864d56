"""Where a step's time goes."""

from __future__ import annotations

from collections.abc import Callable

from smlt.core.messages import StepRecord


class StepTimer:
    """Laps of a step by a monotonic clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """A step begins now."""
        self._began = self._last = self._clock()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """What was going on until now was `name`: compute, sync or commit."""
        now = self._clock()
        self._laps[name] = now - self._last
        self._last = now

    def record(self, step: int, epoch: int, loss: float, examples: int) -> StepRecord:
        """The step is over; the next one begins."""
        record = StepRecord(
            step=step,
            epoch=epoch,
            loss=loss,
            examples=examples,
            seconds=self._last - self._began,
            compute_s=self._laps["compute"],
            sync_s=self._laps.get("sync", 0.0),  # local SGD has steps without
            commit_s=self._laps["commit"],
        )
        self.restart()
        return record
