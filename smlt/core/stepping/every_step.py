"""Exact data parallelism: gradients are summed at every step, and all ranks apply the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from smlt.core.errors import ConfigError
from smlt.core.planner import Sync
from smlt.core.stepping.local_sgd import ANCHOR
from smlt.core.stepping.private import shared_out
from smlt.core.stepping.stepping import Stepping, check_finite
from smlt.core.sync.choice import codec_for, collective_for
from smlt.core.sync.collectives import Collective, Seat
from smlt.core.sync.header import Header
from smlt.core.task import Array, State, StepLoss, StepWork, TaskShape, TrainingTask


class EveryStep(Stepping):
    """One sum over all of a contribution a step.

    Raises:
        ConfigError: the codec would carry nothing of this task.
    """

    def __init__(self, task: TrainingTask, shape: TaskShape, sync: Sync) -> None:
        super().__init__(task, shape, sync)
        self._codec = codec_for(sync.codec, shape.regions)
        self._totals: Sequence[Array] = ()

    def compute(self, work: StepWork) -> StepLoss:
        """What is final of the gradients leaves meanwhile."""
        sums = self._sums[""]
        return self.task.compute(work, sums.contribution(work.step), sums.reached)

    def exchange(self, header: Header, *, last: bool) -> Header:
        """Sum the contributions."""
        merged, self._totals = self._sums[""].reduce(header)
        return merged

    def commit(self, step: int, loss: StepLoss) -> None:
        """Apply the sums."""
        check_finite(step, loss)
        self.task.commit(self._totals, loss)
        self._sums[""].commit()

    def shared_state(self) -> State:
        """All of the task's state."""
        return self.task.shared_state()

    def private_state(self) -> State | None:
        """What a lossy codec has lost."""
        lost = self._lost()
        return State(dict(lost)) if lost else None

    def _do_join(self, seat: Seat | None) -> Mapping[str, Collective]:
        return {"": collective_for(seat, self.shape.regions, self._codec)}

    def _do_forget(self) -> None:
        self._totals = ()
        self.task.forget()

    def _do_load(self, shared: State, private: Sequence[State], world_size: int) -> Mapping[str, Array]:
        """All of it is the task's, but for what a codec lost, which is summed and split evenly."""
        if any(name.startswith(ANCHOR) for name in shared.arrays):
            raise ConfigError(
                "the checkpoint was made by local SGD", 'keep [sync].mode = "local_sgd", or start a new run'
            )
        lost = shared_out([state.arrays for state in private], world_size) if private else {}
        self.task.load_shared_state(shared)
        return lost
