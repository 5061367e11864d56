"""When things are due: how long an orderly end takes, and what a function's time limit asks for by now."""

from __future__ import annotations

import math
from enum import Enum

from smlt.core.allowance import Allowance
from smlt.core.course import Course
from smlt.core.fleet import Generation, Member
from smlt.core.messages import Failure
from smlt.core.run_events import Terms
from smlt.core.watch import Watch

START_MARGIN = 1.5
"""A generation is launched ahead by the longest start that was seen, times this."""


class Due(Enum):
    """What a time limit asks for."""

    NOTHING = "nothing"
    NEXT = "launch the next generation"
    END = "end this one"


class Timetable:
    """Reads what the others of a run's controller know; changes nothing.

    Args:
        terms: of the run.
        watch: knows how long starting and saving take.
        course: knows how long steps take.
        allowance: knows the deadline.

    Attributes:
        total_steps: of the job; 0 before anybody has said so.
    """

    def __init__(self, terms: Terms, watch: Watch, course: Course, allowance: Allowance) -> None:
        self._terms, self._watch, self._course, self._allowance = terms, watch, course, allowance
        self.total_steps = 0

    @property
    def stopping_s(self) -> float:
        """Time to end at an agreed step: the step in hand, those to the next exchange, and writing the state."""
        return self._watch.saving_s + (self._terms.exchange_every + 1) * self._course.seconds

    def due(self, generation: Generation, now: float) -> Due:
        """What must be done with a generation before the platform ends its functions."""
        limit_s, stopping_s = self._terms.time_limit_s, self.stopping_s
        if limit_s is None:
            return Due.NOTHING
        left_s = generation.launched_at + limit_s - now
        if left_s <= stopping_s:
            return Due.END
        # Not so long ahead that hardly a step is made in between.
        lead_s = min(START_MARGIN * self._watch.start_s, (limit_s - stopping_s) / 2)
        if left_s <= stopping_s + lead_s and not self.ends_within(now, left_s):
            return Due.NEXT
        return Due.NOTHING

    def ends_within(self, now: float, seconds: float) -> bool:
        """Whether the last step, or the deadline, comes so soon that no other generation is needed."""
        if self._allowance.left_s(now) < seconds:
            return True
        left_s = self.steps_left * self._course.seconds
        return left_s > 0 and left_s + self.stopping_s < seconds

    @property
    def steps_left(self) -> int:
        """Steps to the end of the job; none before anybody has said how many there are."""
        return max(0, self.total_steps - self._course.step)

    def too_short(self) -> Failure | None:
        """Where a function may not even live as long as ending one takes: what is told."""
        limit_s = self._terms.time_limit_s
        stopping_s = self._watch.saving_s + (self._terms.exchange_every + 1) * self._watch.usual_step_s
        if limit_s is None or stopping_s <= limit_s:
            return None
        message = (
            f"a function may live {limit_s:.0f} s here, and ending one in order takes "
            f"{stopping_s:.0f} s: {self._terms.exchange_every + 1} steps and writing the state"
        )
        return Failure("ConfigError", message, self._live_longer, "")

    def expired(self, member: Member, now: float) -> str:
        """What is said of a function that is over: that it came to its time limit; empty where it did not."""
        limit_s = self._terms.time_limit_s
        if limit_s is None or now - member.launched_at < limit_s:
            return ""
        what = "a step at which it could end in order" if member.ready else "it was ready"
        return f"its time limit of {limit_s:.0f} s came before {what}; {self._live_longer}"

    @property
    def _live_longer(self) -> str:
        """The hint where functions do not live long enough."""
        every = self._terms.exchange_every
        least_s = self._watch.start_s + self._watch.saving_s + (every + 1) * self._watch.usual_step_s
        others = ", a smaller [job].global_batch" + (" or a shorter [sync].period" if every > 1 else "")
        return f"choose a longer function time limit, more than {math.ceil(least_s)} s{others}"
