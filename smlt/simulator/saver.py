"""The model of saving off the step path, as `smlt.core.saving` does it: parts by every rank, the manifest by rank 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smlt.core.errors import StorageError
from smlt.core.rank_events import Save
from smlt.core.saving import LEAST_COLLECT_S
from smlt.simulator.store import PATIENCE_S, Attempt, Kept

if TYPE_CHECKING:
    from smlt.simulator.process import Process


class Saving:
    """One checkpoint on its way."""

    __slots__ = ("attempt", "began_s", "failed", "given_up", "is_last", "is_over", "kept")

    def __init__(self, attempt: Attempt, kept: Kept, now: float, *, is_last: bool) -> None:
        self.attempt, self.kept, self.began_s, self.is_last = attempt, kept, now, is_last
        self.is_over = self.given_up = self.failed = False


class ModelSaver:
    """One process's saves, one at a time.

    Attributes:
        passed_over: steps of checkpoints that could not be read.
    """

    __slots__ = ("_process", "passed_over", "saving")

    def __init__(self, process: Process) -> None:
        self._process = process
        self.saving: Saving | None = None
        self.passed_over: frozenset[int] = frozenset()

    @property
    def is_busy(self) -> bool:
        """Whether a checkpoint is on its way."""
        return self.saving is not None and not self.saving.is_over

    def interval_s(self) -> float:
        """Seconds from one checkpoint to the next."""
        if self.is_busy:
            return float("inf")
        if self.saving is not None and self.saving.given_up:
            return 0.0
        return self._process.world.scenario.save_interval_s

    def give_up(self) -> None:
        """Nothing shall come of the one that is on its way."""
        if self.saving is not None and not self.saving.is_over:
            self.saving.given_up = True

    def begin(self, command: Save) -> None:
        """Copy this rank's share, and let it be written."""
        process = self._process
        world = process.world
        assert process.joined is not None
        attempt = Attempt(*process.joined, command.cursor.step)
        kept = Kept(command.cursor, process.state, command.best, command.goal, attempt)
        saving = self.saving = Saving(attempt, kept, world.timeline.now, is_last=command.last)
        seconds = process.draw(world.times(process).save_s / process.workers) + world.store.request_s()
        if seconds > PATIENCE_S:
            process.aside(PATIENCE_S, _fail, saving)
        else:
            process.aside(seconds, _part_written, saving)


def _part_written(process: Process, saving: Saving) -> None:
    world = process.world
    if process.reached("saving"):
        return
    if process.rank != 0:
        if not saving.given_up:
            world.store.part_written(saving.attempt, process.rank)
        _end(process, saving)
        return
    world.store.part_written(saving.attempt, 0)
    _collect(process, saving)


def _collect(process: Process, saving: Saving) -> None:
    """Rank 0 waits for the parts of all others."""
    world = process.world
    if saving.given_up:
        _end(process, saving)
    elif world.store.parts_of(saving.attempt) == process.workers:
        if saving.is_last:
            process.doing("saving")
        if not process.reached("manifest"):
            process.aside(world.store.request_s(), _manifest_written, saving)
    elif not saving.is_last and world.timeline.now - saving.began_s > LEAST_COLLECT_S + 2.0:
        _fail(process, saving)
    else:
        if saving.is_last:
            process.doing("waiting for part")
        process.aside(0.5, _collect, saving)


def _manifest_written(process: Process, saving: Saving) -> None:
    world = process.world
    if saving.given_up:
        _end(process, saving)
        return
    if not process.courier.tell():
        _fail(process, saving)
        return
    world.invariants.saved(process, saving.kept, world.store.keep(saving.kept))
    if process.reached("saved"):
        return
    process.courier.checkpoints.append((saving.attempt.step, world.timeline.now - saving.began_s))
    _end(process, saving)
    world.store.prune(saving.attempt, process.saver.passed_over)


def _end(process: Process, saving: Saving) -> None:
    saving.is_over = True
    process.saved()


def _fail(process: Process, saving: Saving) -> None:
    saving.failed = True
    _end(process, saving)


def error_of(saving: Saving) -> StorageError:
    """Why nothing came of it."""
    return StorageError(f"no checkpoint at step {saving.attempt.step}")
