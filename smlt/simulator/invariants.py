"""What must hold at every event of every run, whatever goes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from smlt.core import rank_events as events
from smlt.core.endings import OUT_OF_MEMORY
from smlt.core.errors import ChannelError, SmltError, StorageError
from smlt.core.run_events import Finish, Launch
from smlt.core.sampler import Cursor
from smlt.core.sync.header import Header
from smlt.simulator.store import Kept

if TYPE_CHECKING:
    from smlt.simulator.process import Process
    from smlt.simulator.world import World

MONEY_GRAIN = 1e-9
"""USD; sums of floats are not closer."""


class Broken(Exception):
    """An invariant does not hold."""


class Invariants:
    """Watches a world; whatever does not hold raises `Broken` at the event that broke it.

    Attributes:
        commits: by all ranks together.
        reached: the highest step that was committed.
        exported: models that were written.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.commits = 0
        self.reached = 0
        self.exported = 0
        self._course = 0

    # A rank

    def failed(self, process: Process, error: SmltError) -> None:
        """A rank fails for no fault of the world's: its machine was told what it cannot take, or states differ."""
        if not isinstance(error, (ChannelError, StorageError)):
            raise Broken(f"{process.uuid} fails: {error.message}")

    def met(self, process: Process, standings: Sequence[events.Standing]) -> None:
        """What ranks say of themselves is so."""
        own = standings[process.rank]
        if own.cursor is not None and own.cursor.step != process.step:
            raise Broken(f"{process.uuid} says it stands at step {own.cursor.step}, and stands at {process.step}")

    def taking_over(self, process: Process, cursor: Cursor) -> None:
        """A commit that a living rank has made is never undone for another's state; of a period, an exchange."""
        if process.has_state and cursor.step <= process.step:
            raise Broken(
                f"{process.uuid} stands at step {process.step}, and takes over the state of step {cursor.step}"
            )

    def going_back(self, process: Process) -> None:
        """A branch is rolled back only where nobody has its state or, if that must not be, not all of it."""
        rules = self._world.rules
        if process.has_state and (rules.recovers_fast or not rules.has_private):
            raise Broken(f"{process.uuid} has the state of step {process.step}, and reads a checkpoint")

    def contributed(self, process: Process, headers: Sequence[Header], values: Sequence[Any]) -> None:
        """All contributions to a step are to the same step, from the same SHARED state, which is the right one."""
        steps = {header.step for header in headers}
        if len(steps) > 1:
            raise Broken(f"ranks contribute to different steps: {sorted(steps)}")
        first = values[0]
        if any(value != first for value in values):
            rank = next(rank for rank, value in enumerate(values) if value != first)
            raise Broken(f"ranks 0 and {rank} contribute from different states to step {process.step}")
        if first is None or first[1] != self._world.expected[first[0]]:
            raise Broken(f"all ranks contribute to step {process.step} from a state that is not its own")

    def committing(self, process: Process, command: events.Commit) -> None:
        """Every step is committed once and in order, with the work of all ranks, on every rank to the same state.

        PRIVATE state is as old: with `Rules.recovers_fast` of who has lost it, counted from where it began anew.
        """
        world, cursor = self._world, command.cursor
        if process.state != world.expected[cursor.step]:
            raise Broken(
                f"{process.uuid} commits step {cursor.step} onto another state than that after the step before"
            )
        if process.in_hand is None or process.in_hand[0] != cursor.step:
            raise Broken(f"{process.uuid} commits step {cursor.step}, which it has not computed")
        if process.in_hand[1] != process.state:
            raise Broken(f"{process.uuid} commits step {cursor.step}, computed from another state")
        if process.in_hand[2] != world.exchanges(cursor):
            raise Broken(f"{process.uuid} commits step {cursor.step} without the work of the other ranks")
        if world.scenario.has_private and process.private != cursor.step:
            raise Broken(f"{process.uuid} commits step {cursor.step} with the PRIVATE state of another")
        self.commits += 1
        self.reached = max(self.reached, cursor.step + 1)

    def committed_by_others(self, ranks: int) -> None:
        """So many ranks have done the same."""
        self.commits += ranks

    def saved(self, process: Process, kept: Kept, there: Kept) -> None:
        """A checkpoint is what the undisturbed run would have written, whoever writes it, and however often."""
        if kept.state != self._world.expected[kept.cursor.step]:
            raise Broken(f"{process.uuid} saves step {kept.cursor.step} with another state than that of the step")
        if there[:-1] != kept[:-1]:
            raise Broken(f"{process.uuid} saves step {kept.cursor.step} otherwise than it was saved before")

    def leaving(self, process: Process) -> None:
        """Who leaves in order leaves its state behind."""
        if not any(step >= process.step for step in self._world.store.checkpoints):
            raise Broken(f"{process.uuid} leaves at step {process.step}, whose state nobody has saved")

    def exported_by(self, process: Process) -> None:
        """A model is written of the last state."""
        if process.state != self._world.expected[self._world.scenario.steps]:
            raise Broken(f"{process.uuid} exports the model of another state than the last one")
        self.exported += 1

    def written_twice(self, process: Process, key: str) -> None:
        """A key of the channel is written once."""
        raise Broken(f"{process.uuid} writes the key {key} a second time")

    # The run

    def steps_recorded(self, generation: int, steps: Sequence[int], before: int) -> None:
        """The run log has every step once and in order; it goes back only where a branch is rolled back."""
        for step in steps:
            if step > before:
                raise Broken(f"generation {generation} recorded step {step}, and never step {before}")
            before = step + 1

    def launching(self, command: Launch, launched: int) -> None:
        """Nobody is replaced who has not been ended; no more functions live than may, nor with less memory."""
        platform, most, address = self._world.platform, self._world.terms.max_workers, command.address
        if command.memory_mib < self._world.log_memory_mib:
            raise Broken(f"{address} is launched with {command.memory_mib} MiB, which has not sufficed before")
        if platform.running(address):
            raise Broken(f"{address} is launched twice")
        before = (
            platform.running(replace(address, incarnation=address.incarnation - 1)) if address.incarnation else None
        )
        is_heir = self._world.log_launched[address.generation][address][0]["is_heir"]
        if before and not before.kill_asked and not is_heir:
            raise Broken(f"{before.uuid} is replaced while it is still there, and nobody has ended it")
        if self._world.scenario.can_kill and launched >= most:
            raise Broken(f"{launched + 1} functions would live at once, {most} may")

    def money(self, committed_usd: float) -> None:
        """Committed money does not pass the budget."""
        budget_usd = self._world.scenario.budget_usd
        if budget_usd is not None and committed_usd > budget_usd + MONEY_GRAIN:
            raise Broken(f"{committed_usd:.6f} USD are committed, {budget_usd:.6f} USD is the budget")

    def finished(self, finish: Finish) -> None:
        """What is said of the run's end is so."""
        world = self._world
        if finish.status == "succeeded":
            if self.reached != world.scenario.steps:
                raise Broken(f"the run succeeded after {self.reached} of {world.scenario.steps} steps")
            if not self.exported:
                raise Broken("the run succeeded without a model")
        elif finish.status == "failed" and (finish.failure is None or not finish.failure.message):
            raise Broken("the run failed and does not say why")
        elif finish.failure and finish.failure.kind == OUT_OF_MEMORY and not self._needs_too_much():
            raise Broken("the run failed of too little memory, and there was a size that suffices")
        elif finish.status == "failed" and not world.has_struck and self._fits_time_limit:
            raise Broken(f"the run failed although nothing went wrong: {finish.stop_reason}")

    @property
    def _fits_time_limit(self) -> bool:
        return replace(self._world.scenario, timing=self._world.timing).fits_time_limit

    def _needs_too_much(self) -> bool:
        return max(self._world.needs_mib.values()) > max(self._world.terms.memory_choices_mib)

    def not_over(self) -> None:
        """Every run ends."""
        raise Broken(f"the run has not ended after {self._world.timeline.now:.0f} s")

    def left_over(self) -> None:
        """Nothing is left running after the end and the grace of orphans."""
        # Who hangs before it has claimed its place is known to nobody but the platform, whose limit ends it.
        left = [uuid for uuid, process in self._world.platform.processes.items() if process.has_claimed]
        if left:
            raise Broken(f"{', '.join(left[:5])} and {max(0, len(left) - 5)} others run on after the end")
