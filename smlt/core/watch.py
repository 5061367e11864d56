"""Who is lost without saying so: what the controller concludes from beats, and from how long things took before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from smlt.core.fleet import Generation, Member
from smlt.core.messages import StepRecord
from smlt.core.run_events import Terms

RECENT_STARTS = 8
"""The first ones are cold: later ones tell more."""

BUILDING = 6.0
"""While a worker imports and builds it may be silent so many times as long: an import can keep all threads waiting."""

PATIENCE = 5.0
"""A phase may take so many times as long as it is known to take."""


@dataclass
class Watch:
    """Watches the ranks of a run.

    Args:
        terms: the least times that are allowed.
    """

    terms: Terms
    _steps_s: deque[float] = field(default_factory=lambda: deque(maxlen=100))
    _examples: int = 0
    _eval_examples: int = 0
    _evaluation_s: float = 0.0
    _saving_s: float = 0.0
    _starts_s: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_STARTS))

    @property
    def start_s(self) -> float:
        """The longest that a function took to be READY, lately; a guess before the first."""
        return max(self._starts_s, default=self.terms.start_s)

    @property
    def saving_s(self) -> float:
        """Time to set aside for writing the state."""
        return max(self.terms.state_write_s, 1.5 * self._saving_s)

    def start_took(self, seconds: float) -> None:
        """A function was READY so long after its launch."""
        self._starts_s.append(seconds)

    def saving_took(self, seconds: float) -> None:
        """A checkpoint took so long."""
        self._saving_s = max(self._saving_s, seconds)

    def evaluates(self, examples: int) -> None:
        """An evaluation has so many examples."""
        self._eval_examples = examples

    def evaluation_took(self, seconds: float) -> None:
        """An evaluation took so long."""
        self._evaluation_s = max(self._evaluation_s, seconds)

    def steps_took(self, records: Sequence[StepRecord]) -> None:
        """Steps were committed."""
        self._steps_s.extend(record.seconds for record in records)
        self._examples = records[-1].examples

    def was_blind(self, generations: Sequence[Generation], now: float) -> None:
        """Nothing could be heard of anybody for a while: silence counts from now on."""
        for generation in generations:
            for member in generation.members:
                if member.heard_at is not None:
                    member.heard_at = now

    def lost(self, generation: Generation, now: float) -> Iterator[tuple[Member, str]]:
        """Members that must be given up, and why."""
        here = [member for member in generation.members if not member.is_gone and not member.left]
        for member in here:
            silence_s = self.terms.silence_s * (1.0 if member.ready else BUILDING)
            if member.ready is None and now - member.launched_at > self.terms.start_deadline_s:
                yield member, f"it did not start within {self.terms.start_deadline_s:.0f} s"
            elif member.heard_at is not None and now - member.heard_at > silence_s:
                yield member, f"it was not heard of for {now - member.heard_at:.0f} s"
            elif member.ready and generation.is_open and self._is_stuck(member, here, now):
                phase = member.beat.phase if member.beat else ""
                yield member, f"it is stuck in {phase!r} while all others wait"

    def is_stalled(self, generation: Generation, now: float) -> bool:
        """Whether all ranks wait for each other, for longer than anything takes."""
        here = [member for member in generation.members if not member.is_gone]
        if len(here) < 2 or not generation.is_ready or generation.is_leaving:
            return False
        return all(member.is_waiting and self._age(member, now) > self._limit("waiting") for member in here)

    def _is_stuck(self, member: Member, here: Sequence[Member], now: float) -> bool:
        if member.beat is None or member.is_waiting or member.beat.phase == "ready":
            return False
        others_wait = all(other is member or other.is_waiting for other in here)
        return others_wait and self._age(member, now) > self._limit(member.beat.phase)

    @staticmethod
    def _age(member: Member, now: float) -> float:
        """For how long a member has been in its phase."""
        return 0.0 if member.beat is None else member.beat.phase_s + now - member.beat.now

    def _limit(self, phase: str) -> float:
        """How long a phase may take."""
        if not self._steps_s:
            return self.terms.start_deadline_s  # the first step may compile
        step_s = sorted(self._steps_s)[int(0.95 * (len(self._steps_s) - 1))]
        match phase:
            case "evaluating":
                expected_s = step_s * self._eval_examples / max(1, self._examples)
                return max(self.terms.slow_phase_s, PATIENCE * max(expected_s, self._evaluation_s))
            case "saving" | "loading" | "serving" | "leaving":
                return max(self.terms.slow_phase_s, PATIENCE * self._saving_s)
            case "waiting":
                return 2 * max(self.terms.stuck_s, PATIENCE * step_s) + self.terms.slow_phase_s
        return max(self.terms.stuck_s, PATIENCE * step_s)
