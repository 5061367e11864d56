"""Which examples belong to (step, rank): a pure function; the course does not depend on the number of workers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from smlt.core.errors import ConfigError
from smlt.core.job import BatchPhase, Job
from smlt.core.task import Indices
from smlt.core.units import Every


@dataclass(frozen=True)
class Cursor:
    """Where a job stands in its data: enough to go on exactly, in mid-epoch, under any schedule.

    Attributes:
        data_version: which state of data that keep arriving; 0 for data that do not.
        epoch: from 0.
        consumed: examples of this epoch that committed steps have used.
        step: the next step to compute, from 0.
    """

    data_version: int = 0
    epoch: int = 0
    consumed: int = 0
    step: int = 0


@dataclass(frozen=True)
class Schedule:
    """The course of a job over its data.

    Attributes:
        examples: examples an epoch visits.
        phases: batch sizes by epoch.
        epochs: epochs to train, or None where `steps` counts.
        steps: steps to train, or None where `epochs` counts.
    """

    examples: int
    phases: tuple[BatchPhase, ...]
    epochs: int | None
    steps: int | None

    @classmethod
    def of(cls, job: Job, examples: int) -> Schedule:
        """The schedule of a job over so many examples.

        Raises:
            ConfigError: the data are smaller than a batch.
        """
        largest = max(phase.size for phase in job.batch_phases)
        if examples < largest:
            raise ConfigError(
                f"train_data has {examples} examples, fewer than one global batch of {largest}",
                f"set [job].global_batch to {max(examples, 1)} or less, or give more data",
            )
        return cls(examples, job.batch_phases, job.epoch_limit, job.steps)

    def batch_size(self, epoch: int) -> int:
        """Examples of a full global batch in this epoch."""
        return next(phase.size for phase in reversed(self.phases) if phase.from_epoch <= epoch)

    def size_at(self, cursor: Cursor) -> int:
        """Examples of the global batch at the cursor; the last one of an epoch may be smaller."""
        return min(self.batch_size(cursor.epoch), self.examples - cursor.consumed)

    def ends_epoch(self, cursor: Cursor) -> bool:
        """Whether the epoch ends with the step at the cursor."""
        return cursor.consumed + self.size_at(cursor) >= self.examples

    def after(self, cursor: Cursor) -> Cursor:
        """The cursor once the step at `cursor` is committed."""
        if self.ends_epoch(cursor):
            return replace(cursor, epoch=cursor.epoch + 1, consumed=0, step=cursor.step + 1)
        return replace(cursor, consumed=cursor.consumed + self.size_at(cursor), step=cursor.step + 1)

    def is_done(self, cursor: Cursor) -> bool:
        """Whether nothing is left to compute."""
        if self.steps is not None:
            return cursor.step >= self.steps
        return cursor.epoch >= (self.epochs or 1)

    @property
    def total_steps(self) -> int:
        """Steps of the whole job."""
        if self.steps is not None:
            return self.steps
        return sum(-(-self.examples // self.batch_size(epoch)) for epoch in range(self.epochs or 1))

    def is_due(self, every: Every, after: Cursor) -> bool:
        """Whether something with this period is due when the cursor has come to stand at `after`."""
        if every.unit == "step":
            return after.step % every.count == 0
        return after.consumed == 0 and after.epoch % every.count == 0

    def batch(self, order: Indices, cursor: Cursor) -> Indices:
        """The global batch at the cursor, from the epoch's order."""
        return order[cursor.consumed : cursor.consumed + self.size_at(cursor)]


def share(indices: Indices, rank: int, world_size: int) -> Indices:
    """The slice of rank `rank`: consecutive, sizes differ by one at most, the larger ones first; may be empty."""
    base, more = divmod(len(indices), world_size)
    start = rank * base + min(rank, more)
    return indices[start : start + base + (rank < more)]
