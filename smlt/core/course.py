"""The steps that a run has committed, once each and in order, put together from what its ranks report."""

from __future__ import annotations

from dataclasses import dataclass, field

from smlt.core.messages import StepRecord
from smlt.core.run_events import Address, Record


@dataclass
class Course:
    """Where a run is.

    Attributes:
        step: the next one.
        seconds: that the last ones took at most.
    """

    step: int = 0
    seconds: float = 0.0
    _generation: int = 0
    _ended: float = 0.0
    _ahead: dict[int, StepRecord] = field(default_factory=dict)
    _succession: tuple[Address, int] | None = None

    def rank_succeeded(self, heir: Address, number: int) -> None:
        """In this round a rank's heir has its place; how long that took is known by the first step made in it."""
        self._succession = heir, number

    def note(self, address: Address, steps: tuple[StepRecord, ...], *, is_stale: bool = False) -> list[Record]:
        """Take a rank's report; rank 0's tells how the run goes on, the others' fill in what it died before telling.

        A step that rank 0 reports again is one that a recovery has made again. What was told by one `is_stale`, whose
        place another incarnation has taken, only fills in: a checkpoint that it wrote may be what the run goes on from.
        """
        if address.rank != 0 or is_stale:
            self._generation = self._generation or address.generation
            self._ahead |= {record.step: record for record in steps if record.step >= self.step}
            return []
        records = self.caught_up(steps[0].step)
        if steps[0].step < self.step:
            records.append(Record("rolled_back", {"step": steps[0].step}))
        if self._generation and self._generation != address.generation:
            stall_s = steps[0].ended - steps[0].seconds - self._ended
            records.append(Record("handed_over", {"generation": address.generation, "stall_s": stall_s}))
        records += self._stall_of_heir(address, steps)
        self._generation = address.generation
        return [*records, self._told(steps)]

    def _stall_of_heir(self, address: Address, steps: tuple[StepRecord, ...]) -> list[Record]:
        if self._succession is None or self._succession[0].generation != address.generation:
            return []
        heir, number = self._succession
        ended = self._ended
        for step in steps:
            if step.round >= number:
                self._succession = None
                return [Record("rank_handed_over", {**vars(heir), "stall_s": step.ended - step.seconds - ended})]
            ended = step.ended
        return []

    def caught_up(self, step: int) -> list[Record]:
        """The steps up to `step` that only other ranks than 0 have reported."""
        missing = [self._ahead[number] for number in range(self.step, step) if number in self._ahead]
        return [self._told(tuple(missing))] if missing else []

    def _told(self, steps: tuple[StepRecord, ...]) -> Record:
        self.step = steps[-1].step + 1
        self.seconds = max(record.seconds for record in steps)
        self._ended = steps[-1].ended
        self._ahead = {step: record for step, record in self._ahead.items() if step >= self.step}
        return Record("steps", {"generation": self._generation, "items": [vars(record) for record in steps]})
