"""Local SGD: every rank trains by itself on its share of each batch; every so many steps an outer step joins them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace

import numpy as np

from smlt.core.errors import ConfigError, TaskError
from smlt.core.planner import Sync
from smlt.core.sampler import Schedule
from smlt.core.stepping.course import check_batch, check_course
from smlt.core.stepping.private import HINT, check_fit, mean_of, shared_out
from smlt.core.stepping.stepping import Stepping, check_finite
from smlt.core.sync.choice import codec_for, collective_for
from smlt.core.sync.collectives import Alone, Collective, Seat
from smlt.core.sync.header import Header
from smlt.core.sync.outer import OuterOptimizer, fragments_of
from smlt.core.task import Array, State, StepLoss, StepWork, TaskShape, TrainingTask
from smlt.core.tensor_file import Snapshot, views_of

ANCHOR, MOMENTUM, INNER = "anchor/", "momentum/", "inner/"
"""Names of local SGD: of the weights agreed on and the outer momentum, SHARED; of the task's state, PRIVATE."""


class LocalSgd(Stepping):
    """Steps of a rank alone, and outer steps over all ranks.

    With several fragments each outer step joins one of them, in turn, so that what travels at once is smaller
    (Streaming DiLoCo, Douillard et al. 2025, arXiv 2501.18512, without its delayed take-over). The last step of a job
    joins all. A single rank takes outer steps on its own movement, as DiLoCo with one worker does.

    An exchange needs the weights after this rank's own step, which is therefore applied before the commit; until then a
    copy of the task's state before it is kept, which is what is visible, and what `forget` brings back.

    Where `sync.recovers_fast`, `forget` goes back to the last exchange, and a rank may be asked for what one without a
    state begins with there: from before the first step after an exchange on, a copy of the task's state is kept.

    Raises:
        ConfigError: the task's framework offers no weights; there are more fragments than the weights have parts; the
            codec would carry none of them.
    """

    def __init__(self, task: TrainingTask, shape: TaskShape, sync: Sync) -> None:
        super().__init__(task, shape, sync)
        if not shape.weights:
            raise ConfigError("this task's framework does not support local SGD", 'set [sync].mode = "every_step"')
        self._codec = codec_for(sync.codec, shape.weights)
        self._fragments = fragments_of(shape.weights, sync.fragments)
        self._local = Alone(shape.regions)
        self._gradients: Sequence[Array] = ()
        self._loss = StepLoss(0.0, 0.0)
        self._before: State | None = None
        self._moved: dict[int, Sequence[Array]] = {}
        self._at_exchange: State | None = None
        self._memory = Snapshot()
        self._outer = OuterOptimizer(shape.weights, sync.outer_learning_rate, sync.outer_momentum)
        task.read_weights(self._outer.anchors)
        self._weights = [anchor.copy() for anchor in self._outer.anchors]
        self._numbers: list[int] = []
        self._ranks = 1

    def check_course(self, schedule: Schedule, world_size: int) -> None:
        """No batch is smaller than the number of ranks, and the job not shorter than a period."""
        check_course(schedule, world_size, self.sync.period)

    def compute(self, work: StepWork) -> StepLoss:
        """As if this rank were alone and its share the batch.

        Raises:
            ConfigError: there are more ranks than examples in the batch; the same on every rank.
        """
        check_batch(work.global_batch, self._ranks, f"at step {work.step}")
        if self.sync.recovers_fast and self._at_exchange is None:
            self._at_exchange = self._kept(self.task.shared_state())
        self._gradients = self._local.contribution(work.step)
        own = replace(work, global_batch=len(work.indices), alone=True)
        self._loss = self.task.compute(own, self._gradients)
        return self._loss

    def exchange(self, header: Header, *, last: bool) -> Header:
        """Sum how far the ranks have moved in the fragments whose turn it is."""
        check_finite(header.step, self._loss)
        self._before = _copy_of(self.task.shared_state())
        self._step_alone()
        self.task.read_weights(self._weights)
        merged = header
        for number in self._due(header.step + 1, last):
            fragment, sums = self._fragments[number], self._sums[_prefix(number)]
            contribution = sums.contribution(self._numbers[number])
            self._outer.movement(self._weights, fragment, contribution)
            merged, self._moved[number] = sums.reduce(replace(header, step=self._numbers[number]))
        return replace(merged, step=header.step)

    def commit(self, step: int, loss: StepLoss) -> None:
        """Take the outer step where ranks have exchanged; elsewhere apply the step of this rank alone."""
        if self._before is None:
            check_finite(step, self._loss)
            self._step_alone()
            return
        for number, moved in self._moved.items():
            fragment = self._fragments[number]
            self._outer.step(fragment, moved, self._ranks)
            self._outer.take_over(fragment, self._weights)
            self._sums[_prefix(number)].commit()
            self._numbers[number] += 1
        self.task.write_weights(self._weights)
        self._before, self._moved, self._at_exchange = None, {}, None

    def shared_state(self) -> State:
        """The weights agreed on, and the outer momentum."""
        arrays = {f"{ANCHOR}{number}": array for number, array in enumerate(self._outer.anchors)}
        return State(arrays | {f"{MOMENTUM}{number}": array for number, array in enumerate(self._outer.momenta)})

    def private_state(self) -> State | None:
        """The task as it is on this rank, and what a lossy codec has lost."""
        inner = self._before or self.task.shared_state()
        return State(_above(INNER, inner.arrays) | dict(self._lost()), inner.extra)

    def offer(self) -> State:
        """SHARED state, and the task's at the weights agreed on: this rank's optimizer, and none of its movement."""
        with self.shown():
            inner = _copy_of(self.task.shared_state())
        return State(self.shared_state().arrays | _above(INNER, inner.arrays), inner.extra)

    def take(self, offered: State, world_size: int) -> None:
        """As if the task's state were this rank's own."""
        arrays = offered.arrays
        own = {name: array for name, array in arrays.items() if name.startswith(INNER)}
        self.load(State(_without(INNER, arrays)), [State(own, offered.extra)], world_size)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The weights agreed on, for as long as it takes."""
        self.task.read_weights(self._weights)
        self.task.write_weights(self._outer.anchors)
        try:
            yield
        finally:
            self.task.write_weights(self._weights)

    def _do_join(self, seat: Seat | None) -> Mapping[str, Collective]:
        """One sum a fragment."""
        self._ranks = seat.world_size if seat else 1
        self._numbers = [0] * len(self._fragments)
        found = {}
        for number, fragment in enumerate(self._fragments):
            regions = tuple(replace(self.shape.weights[span.region], elements=span.elements) for span in fragment)
            place = replace(seat, prefix=_prefix(number)) if seat else None
            found[_prefix(number)] = collective_for(place, regions, self._codec, overlap=False)
        return found

    def _do_forget(self) -> None:
        back, self._before, self._moved = self._at_exchange or self._before, None, {}
        if back is None:
            self.task.forget()
        else:
            self.task.load_shared_state(back)

    def _do_load(self, shared: State, private: Sequence[State], world_size: int) -> Mapping[str, Array]:
        """The own state again or, among another number of ranks, the mean of all ranks', residuals included."""
        if not private or not any(name.startswith(ANCHOR) for name in shared.arrays):
            raise ConfigError(
                "the checkpoint was not made by local SGD", 'keep [sync].mode = "every_step", or start a new run'
            )
        mine = self.shared_state().arrays
        if mine.keys() != shared.arrays.keys():
            given, wanted = (", ".join(sorted(arrays)) for arrays in (shared.arrays, mine))
            raise TaskError(f"the saved state of local SGD has {given}, and the task has {wanted}", HINT)
        for name, array in mine.items():
            check_fit(name, shared.arrays[name], array)
        lost = shared_out([_without(INNER, state.arrays) for state in private], len(private))
        self.task.load_shared_state(mean_of([State(_below(INNER, each.arrays), each.extra) for each in private]))
        for name, array in mine.items():
            np.copyto(array, shared.arrays[name])
        self._before, self._moved, self._at_exchange = None, {}, None
        return lost

    def _kept(self, state: State) -> State:
        """A copy, in memory that the next one takes, too."""
        return State(views_of(self._memory.take(state.arrays)), deepcopy(state.extra))

    def _step_alone(self) -> None:
        """Apply this rank's own step; one that nothing weighs is none."""
        if self._loss.weight:
            self.task.commit(self._gradients, self._loss)
        else:
            self.task.forget()

    def _due(self, steps: int, last: bool) -> Sequence[int]:
        """Which fragments the outer step after so many steps joins."""
        if last:
            return range(len(self._fragments))
        return [(steps // self.sync.exchange_every - 1) % len(self._fragments)]


def _prefix(fragment: int) -> str:
    """What the names of a fragment's values and residuals begin with."""
    return f"{fragment}."


def _above(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {prefix + name: array for name, array in arrays.items()}


def _below(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _without(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name: array for name, array in arrays.items() if not name.startswith(prefix)}


def _copy_of(state: State) -> State:
    return State({name: array.copy() for name, array in state.arrays.items()}, deepcopy(state.extra))
