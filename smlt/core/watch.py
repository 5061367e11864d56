"""Who is lost without saying so: what the controller concludes from beats, and from how long things took before."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from smlt.core.fleet import Generation, Member
from smlt.core.messages import StepRecord
from smlt.core.run_events import Terms

RECENT_STARTS = 8
"""The first ones are cold: later ones tell more."""

RECENT_SAVES = 8
"""Their median counts: a single one that met a store in trouble says nothing of the next."""

BUILDING = 6.0
"""While a worker imports and builds it may be silent so many times as long: an import can keep all threads waiting."""

PATIENCE = 5.0
"""A phase may take so many times as long as it is known to take."""

AGAIN = 2.0
"""A rank that was taken for stuck was perhaps slow: until a further step came through, the next may take longer."""

SAVING = 3.0
"""The least time for saving, of which it is known how long it takes, is so many times that of a step: stores vary."""

EVERYBODY = -1
"""In the place of a rank where all wait for each other."""


@dataclass
class Watch:
    """Watches the ranks of a run.

    Args:
        terms: the least times that are allowed.
    """

    terms: Terms
    _steps_s: deque[float] = field(default_factory=lambda: deque(maxlen=100))
    _long_step_s: float = 0.0
    _workers: int = 0
    _growth: float = 1.0
    _leniency: float = 1.0
    _furthest: int = -1
    _first_step_s: float = 0.0
    _examples: int = 0
    _eval_examples: int = 0
    _evaluation_s: float = 0.0
    _saves_s: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_SAVES))
    _starts_s: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_STARTS))
    _blind_until: float = float("-inf")

    @property
    def start_s(self) -> float:
        """The longest that a function took to be READY, lately; a guess before the first."""
        return max(self._starts_s, default=self.terms.start_s)

    @property
    def saving_s(self) -> float:
        """Time to set aside for writing the state."""
        return max(self.terms.state_write_s, 1.5 * self._saving_s)

    @property
    def _saving_s(self) -> float:
        return statistics.median(self._saves_s) if self._saves_s else 0.0

    @property
    def usual_step_s(self) -> float:
        """Seconds of a step at the median; 0 before the first."""
        return statistics.median(self._steps_s) if self._steps_s else 0.0

    def start_took(self, seconds: float) -> None:
        """A function was READY so long after its launch."""
        self._starts_s.append(seconds)

    def saving_took(self, seconds: float) -> None:
        """A checkpoint took so long."""
        self._saves_s.append(seconds)

    def evaluates(self, examples: int) -> None:
        """An evaluation has so many examples."""
        self._eval_examples = examples

    def evaluation_took(self, seconds: float) -> None:
        """An evaluation took so long."""
        self._evaluation_s = max(self._evaluation_s, seconds)

    def first_step_took(self, seconds: float) -> None:
        """The first step of a function took so long."""
        self._first_step_s = max(self._first_step_s, seconds)

    def steps_took(self, records: Sequence[StepRecord], workers: int) -> None:
        """Steps were committed by so many workers."""
        if records[-1].step > self._furthest:
            self._furthest, self._leniency = records[-1].step, 1.0
        if workers != self._workers:
            self._workers = workers
            self._steps_s.clear()
        self._steps_s.extend(record.seconds for record in records)
        self._long_step_s = sorted(self._steps_s)[int(0.95 * (len(self._steps_s) - 1))]
        self._examples = records[-1].examples

    def was_blind(self, now: float) -> None:
        """Nothing could be heard of anybody until now: nobody's silence or slowness before counts."""
        self._blind_until = now

    def lost(self, generation: Generation, now: float) -> Iterator[tuple[Member, str]]:
        """Members that must be given up, and why."""
        self._growth = self._share_grows(generation.workers)
        here = [member for member in generation.here if not member.left]
        busy = {
            member.address.rank: member for member in here if not member.is_waiting or _has_not_come(generation, member)
        }
        for member in [*here, generation.heir] if generation.heir else here:
            silence_s = self.terms.silence_s * (1.0 if member.ready else BUILDING)
            if member.ready is None and self._since(member.launched_at, now) > self.terms.start_deadline_s:
                yield member, f"it did not start within {self.terms.start_deadline_s:.0f} s"
            elif member.heard_at is not None and self._since(member.heard_at, now) > silence_s:
                yield member, f"it was not heard of for {now - member.heard_at:.0f} s"
            elif member is generation.heir:
                continue  # it waits, however long
            elif generation.leaving_since is not None:
                if self._since(generation.leaving_since, now) > self._slow_limit(self._saving_s):
                    yield member, "it has not left although others have"
            elif member.address.rank in busy and generation.is_open and member.ready and member.beat:
                phase = member.beat.phase
                if len(busy) == 1 and self._is_stuck(generation, member, now):
                    self._leniency *= AGAIN
                    yield member, f"it is stuck in {phase!r} while all others wait"
                elif len(busy) > 1 and all(
                    self._is_stuck(generation, each, now, self._limit("waiting", each)) for each in busy.values()
                ):
                    yield member, f"it is stuck in {phase!r}, and {len(busy) - 1} others are stuck too"

    def _share_grows(self, workers: int) -> float:
        """How many times as many examples as of late a rank may be given, where the batch grows or ranks are fewer."""
        batch = self.terms.largest_batch / self._examples if self._examples and self.terms.largest_batch else 1.0
        return max(1.0, batch) * max(1.0, self._workers / workers)

    def is_stalled(self, generation: Generation, now: float) -> bool:
        """Whether all ranks wait for each other, for longer than anything takes."""
        if generation.workers < 2 or not generation.is_ready or generation.is_leaving:
            return False
        return all(
            member.is_waiting and self._age(member, now) > self._limit("waiting", member)
            for member in generation.members
        )

    def _is_stuck(self, generation: Generation, member: Member, now: float, grace_s: float = 0.0) -> bool:
        """Whether it has been in its phase for longer than that may take, and than the grace."""
        if member.beat is None:
            return False
        age_s = self._age(member, now)
        if member.beat.phase == "ready" or member.is_waiting:  # that began before the round did
            age_s = min(age_s, self._since(generation.opened_at, now)) if member.round == generation.round else 0.0
        return age_s > self._limit(member.beat.phase, member) + grace_s

    def _since(self, then: float, now: float) -> float:
        """Seconds from `then` to now in which one could have heard something."""
        return now - max(then, self._blind_until)

    def _age(self, member: Member, now: float) -> float:
        """For how long a member has been in its phase, as far as it could be heard of."""
        return 0.0 if member.beat is None else self._since(member.beat.now - member.beat.phase_s, now)

    def _limit(self, phase: str, member: Member) -> float:
        """How long a phase may take."""
        step_s = self._long_step_s
        match phase:
            case "evaluating":
                expected_s = step_s * self._eval_examples / max(1, self._examples)
                return self._slow_limit(max(expected_s, self._evaluation_s))
            case "building":
                return self.terms.start_deadline_s
            case "saving" if self._saves_s:
                return max(SAVING * self.terms.stuck_s, PATIENCE * self._saving_s)
            case "saving" | "loading" | "serving" | "leaving":
                return self._slow_limit(self._saving_s)
            case "waiting":
                return 2 * max(self.terms.stuck_s, PATIENCE * step_s * self._growth) + self.terms.slow_phase_s
        if not member.has_stepped and phase != "ready":
            if not self._first_step_s:
                return self.terms.start_deadline_s  # it may compile
            step_s = self._first_step_s
        return self._leniency * max(self.terms.stuck_s, PATIENCE * step_s * self._growth)

    def _slow_limit(self, known_s: float) -> float:
        return max(self.terms.slow_phase_s, PATIENCE * known_s)


def _has_not_come(generation: Generation, member: Member) -> bool:
    """Whether it waits in a round before the one that it is a member of: who waits would have noticed."""
    if member.beat is None or member.round != generation.round:
        return False
    return member.beat.now - member.beat.phase_s < generation.opened_at


@dataclass
class Losses:
    """How often each rank of each generation was lost since the run came further than ever: one that is lost again and
    again is no bad luck.
    """

    _furthest: int = -1
    _by_rank: dict[tuple[int, int], int] = field(default_factory=dict)

    def count(self, generation: int, rank: int, step: int) -> int:
        """A rank was lost at a step; returns how often that has happened by now without progress."""
        if step > self._furthest:
            self._furthest = step
            self._by_rank.clear()
        self._by_rank[generation, rank] = self._by_rank.get((generation, rank), 0) + 1
        return self._by_rank[generation, rank]
