"""Which rank holds the others up, and whether another function in its place would pay."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from smlt.core.messages import StepRecord

WINDOW = 20
"""Steps by which a rank is judged."""

LOOK_STEPS, LOOK_S = 5, 10.0
"""Ranks are compared once in so many steps, and seconds of training."""

LOOKS = 4
"""A rank that is the slow one in so many looks in a row is slow, and has not just shared a core for a moment."""

SLOW = 1.5
"""A rank is slow that computes so many times as long as the next slowest."""

MUST_GAIN = 3.0
"""What replacing it saves must be so many times what it costs: the next function may be no better."""


class Straggler(NamedTuple):
    """A slow rank, and the seconds that every step waits for it."""

    rank: int
    seconds_a_step: float


class Stragglers:
    """Compares the ranks of one generation by the seconds that they compute; of waiting all have the same."""

    def __init__(self, workers: int) -> None:
        self._compute_s = [deque[float](maxlen=WINDOW) for _ in range(workers)]
        self._told: set[int] = set()
        self._new_steps, self._new_s = 0, 0.0
        self._suspect, self._looks = -1, 0

    def note(self, rank: int, records: Sequence[StepRecord]) -> None:
        """A rank has reported steps."""
        self._compute_s[rank].extend(record.compute_s for record in records)
        if rank == 0:
            self._new_steps += len(records)
            self._new_s += sum(record.seconds for record in records)

    def forget(self, rank: int) -> None:
        """Another function is in the place of this rank."""
        self._compute_s[rank].clear()
        self._suspect = -1

    def found(self) -> Straggler | None:
        """A straggler that was not told of before, if there is one."""
        if self._new_steps < LOOK_STEPS or self._new_s < LOOK_S:
            return None
        self._new_steps, self._new_s = 0, 0.0
        slow = self._slowest()
        suspect = slow.rank if slow else -1
        self._looks = self._looks + 1 if suspect == self._suspect else 1
        self._suspect = suspect
        if slow is None or self._looks < LOOKS:
            return None
        self._told.add(slow.rank)
        return slow

    def _slowest(self) -> Straggler | None:
        """The rank that is much slower than all others now, if there is one."""
        if len(self._compute_s) < 2 or any(len(seconds) < WINDOW for seconds in self._compute_s):
            return None
        usual_s = [statistics.median(seconds) for seconds in self._compute_s]
        rank = usual_s.index(max(usual_s))
        next_s = max(usual for other, usual in enumerate(usual_s) if other != rank)
        if rank in self._told or usual_s[rank] < SLOW * next_s:
            return None
        return Straggler(rank, usual_s[rank] - next_s)


def replacing_pays(straggler: Straggler, steps_left: int, start_s: float, setback_s: float) -> bool:
    """Whether all that is left waits longer for a straggler than for a function in its place.

    Args:
        straggler: which.
        steps_left: of the job.
        start_s: how long a function takes to be READY.
        setback_s: of the steps that are computed again.
    """
    return steps_left * straggler.seconds_a_step > MUST_GAIN * (start_s + setback_s)
