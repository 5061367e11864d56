"""How one rank's steps become one computation of all: by sums at every step, or by an outer step now and then.

A round's sums, the state that all ranks share, and what each has of its own; no store, no clock, no messages.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from smlt.core.errors import ConfigError, NonFiniteLoss, ProtocolError
from smlt.core.planner import Sync
from smlt.core.sync.choice import collective_for
from smlt.core.sync.codecs import codec_named
from smlt.core.sync.collectives import Alone, Collective, Seat
from smlt.core.sync.header import Header
from smlt.core.sync.outer import OuterOptimizer, fragments_of
from smlt.core.sync.payload import RESIDUAL
from smlt.core.task import Array, Region, State, StepLoss, StepWork, TaskShape, TrainingTask

ANCHOR, MOMENTUM, INNER = "anchor/", "momentum/", "inner/"
"""Names of local SGD: of the weights agreed on and the outer momentum, SHARED; of the task's state, PRIVATE."""


class Stepping(ABC):
    """One rank's steps, from the building of its task on.

    `compute`, then `exchange` where the protocol asks for it, then `commit`.

    Args:
        task: built.
        shape: of the task.
        sync: mode, codec and what belongs to them.
    """

    def __init__(self, task: TrainingTask, shape: TaskShape, sync: Sync) -> None:
        self.task, self.shape, self.sync = task, shape, sync
        self._private: dict[str, Array] = {}

    @abstractmethod
    def join(self, seat: Seat | None) -> None:
        """Take part in a round; None for a single rank."""

    @abstractmethod
    def compute(self, work: StepWork) -> StepLoss:
        """Forward and backward over this rank's share."""

    @abstractmethod
    def exchange(self, header: Header, *, last: bool) -> Header:
        """Share with the other ranks; returns what all of them said.

        Args:
            header: what this rank says.
            last: whether the job ends with this step.
        """

    @abstractmethod
    def commit(self, step: int, loss: StepLoss) -> None:
        """Apply the step, whose loss this is.

        Raises:
            NonFiniteLoss: the loss is no number; nothing was applied.
        """

    def forget(self) -> None:
        """Give up the step in hand."""
        self.task.forget()

    @abstractmethod
    def shared_state(self) -> State:
        """What is equal on every rank at a commit."""

    @abstractmethod
    def private_state(self) -> State | None:
        """What only this rank has at a commit; None where there is nothing."""

    @abstractmethod
    def load(self, shared: State, private: Sequence[State], world_size: int) -> None:
        """Take over a state, before `join`.

        Args:
            shared: of all ranks.
            private: this rank's alone or, where the number of ranks was another one, those of all of them; empty where
                they had nothing. Of several, residuals are summed and split evenly, and other numbers averaged:
                deterministic, but not bit for bit.
            world_size: ranks now.

        Raises:
            ConfigError: the state is of another mode.
        """

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The model inside is the one that all ranks share; for evaluating and exporting it."""
        yield

    @abstractmethod
    def close(self) -> None:
        """Stop whatever goes on in the round."""

    def _restore_residuals(self, sums: Collective, prefix: str = "") -> None:
        for name, array in sums.private().items():
            kept = self._private.get(prefix + name)
            if kept is not None and kept.shape == array.shape:
                np.copyto(array, kept)


class EveryStep(Stepping):
    """Exact data parallelism: gradients are summed at every step, and all ranks apply the same."""

    _sums: Collective
    _totals: Sequence[Array] = ()

    def join(self, seat: Seat | None) -> None:
        """One sum over all of a contribution."""
        self._sums = collective_for(seat, self.shape.regions, codec_named(self.sync.codec))
        self._restore_residuals(self._sums)

    def compute(self, work: StepWork) -> StepLoss:
        """What is final of the gradients leaves meanwhile."""
        return self.task.compute(work, self._sums.contribution(work.step), self._sums.reached)

    def exchange(self, header: Header, *, last: bool) -> Header:
        """Sum the contributions."""
        merged, self._totals = self._sums.reduce(header)
        return merged

    def commit(self, step: int, loss: StepLoss) -> None:
        """Apply the sums."""
        _check_finite(step, loss)
        self.task.commit(self._totals, loss)
        self._sums.commit()

    def shared_state(self) -> State:
        """All of the task's state."""
        return self.task.shared_state()

    def private_state(self) -> State | None:
        """What a lossy codec has lost."""
        lost = self._sums.private()
        return State(lost) if lost else None

    def load(self, shared: State, private: Sequence[State], world_size: int) -> None:
        """All of it is the task's, but for what a codec lost."""
        if any(name.startswith(ANCHOR) for name in shared.arrays):
            raise ConfigError(
                "the checkpoint was made by local SGD", 'keep [sync].mode = "local_sgd", or start a new run'
            )
        self.task.load_shared_state(shared)
        if private:
            self._private = _joined(private, world_size).arrays

    def close(self) -> None:
        """End the sum in hand, if any."""
        if hasattr(self, "_sums"):
            self._sums.close()


class LocalSgd(Stepping):
    """Every rank trains by itself on its share of each batch; every so many steps an outer step joins them.

    With several fragments each outer step joins one of them, in turn, so that what travels at once is smaller
    (Streaming DiLoCo, Douillard et al. 2025, arXiv 2501.18512, without its delayed take-over). The last step of a job
    joins all.
    """

    def __init__(self, task: TrainingTask, shape: TaskShape, sync: Sync) -> None:
        super().__init__(task, shape, sync)
        if not shape.weights:
            raise ConfigError("this task's framework does not support local SGD", 'set [sync].mode = "every_step"')
        self._local = Alone(shape.regions)
        self._gradients: Sequence[Array] = ()
        self._loss = StepLoss(0.0, 0.0)
        self._has_stepped = False
        self._outer = OuterOptimizer(shape.weights, sync.outer_learning_rate, sync.outer_momentum)
        task.read_weights(self._outer.anchors)
        self._weights = [anchor.copy() for anchor in self._outer.anchors]
        self._fragments = fragments_of(shape.weights, sync.fragments)
        self._sums: list[Collective] = []
        self._numbers: list[int] = []
        self._ranks = 1

    def join(self, seat: Seat | None) -> None:
        """One sum a fragment."""
        codec = codec_named(self.sync.codec)
        self._ranks = seat.world_size if seat else 1
        self._numbers = [0] * len(self._fragments)
        self._sums = []
        for number, fragment in enumerate(self._fragments):
            regions = tuple(replace(self.shape.weights[span.region], elements=span.elements) for span in fragment)
            place = replace(seat, prefix=_prefix(number)) if seat else None
            sums = collective_for(place, regions or (Region("float32", 0),), codec, overlap=False)
            self._restore_residuals(sums, _prefix(number))
            self._sums.append(sums)

    def compute(self, work: StepWork) -> StepLoss:
        """As if this rank were alone and its share the batch; nothing where the share is empty."""
        self._gradients, self._has_stepped = self._local.contribution(work.step), False
        self._loss = StepLoss(0.0, 0.0)
        if len(work.indices):
            own = replace(work, global_batch=len(work.indices), alone=True)
            self._loss = self.task.compute(own, self._gradients)
        return self._loss

    def exchange(self, header: Header, *, last: bool) -> Header:
        """Apply the step by itself, and join the fragments whose turn it is."""
        self._step_alone(header.step)
        self.task.read_weights(self._weights)
        merged = header
        for number in self._due(header.step + 1, last):
            fragment, sums = self._fragments[number], self._sums[number]
            contribution = sums.contribution(self._numbers[number])
            self._outer.movement(self._weights, fragment, contribution[: len(fragment)])
            merged, totals = sums.reduce(replace(header, step=self._numbers[number]))
            sums.commit()
            self._outer.step(fragment, totals[: len(fragment)], self._ranks)
            self._outer.take_over(fragment, self._weights)
            self._numbers[number] += 1
        self.task.write_weights(self._weights)
        return replace(merged, step=header.step)

    def commit(self, step: int, loss: StepLoss) -> None:
        """Apply the step by itself, unless that is done."""
        if not self._has_stepped:
            self._step_alone(step)

    def shared_state(self) -> State:
        """The weights agreed on, and the outer momentum."""
        arrays = {f"{ANCHOR}{number}": array for number, array in enumerate(self._outer.anchors)}
        return State(arrays | {f"{MOMENTUM}{number}": array for number, array in enumerate(self._outer.momenta)})

    def private_state(self) -> State | None:
        """The task as it is on this rank, and what a lossy codec has lost."""
        inner = self.task.shared_state()
        arrays = {INNER + name: array for name, array in inner.arrays.items()}
        for number, sums in enumerate(self._sums):
            arrays |= {_prefix(number) + name: array for name, array in sums.private().items()}
        return State(arrays, inner.extra)

    def load(self, shared: State, private: Sequence[State], world_size: int) -> None:
        """The own state again or, among another number of ranks, all ranks' mean at the weights agreed on."""
        if not private or not all(f"{ANCHOR}{number}" in shared.arrays for number in range(len(self._outer.anchors))):
            raise ConfigError(
                "the checkpoint was not made by local SGD", 'keep [sync].mode = "every_step", or start a new run'
            )
        for number, (anchor, momentum) in enumerate(zip(self._outer.anchors, self._outer.momenta, strict=True)):
            np.copyto(anchor, shared.arrays[f"{ANCHOR}{number}"])
            np.copyto(momentum, shared.arrays[f"{MOMENTUM}{number}"])
        own = _joined(private, world_size)
        inner = {name.removeprefix(INNER): each for name, each in own.arrays.items() if name.startswith(INNER)}
        self._private = own.arrays
        self.task.load_shared_state(State(inner, own.extra))
        if len(private) > 1:
            self.task.write_weights(self._outer.anchors)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The weights agreed on, for as long as it takes."""
        self.task.read_weights(self._weights)
        self.task.write_weights(self._outer.anchors)
        try:
            yield
        finally:
            self.task.write_weights(self._weights)

    def close(self) -> None:
        """End the sums in hand."""
        for sums in self._sums:
            sums.close()

    def _step_alone(self, step: int) -> None:
        _check_finite(step, self._loss)
        if self._loss.weight:
            self.task.commit(self._gradients, self._loss)
        self._has_stepped = True

    def _due(self, steps: int, last: bool) -> Sequence[int]:
        """Which fragments the outer step after so many steps joins."""
        if last:
            return range(len(self._fragments))
        return [(steps // self.sync.exchange_every - 1) % len(self._fragments)]


STEPPINGS: dict[str, type[Stepping]] = {"every_step": EveryStep, "local_sgd": LocalSgd}
"""By `[sync].mode`."""


def _prefix(fragment: int) -> str:
    """What the names of a fragment's values and residuals begin with."""
    return f"{fragment}."


def _check_finite(step: int, loss: StepLoss) -> None:
    if loss.weight and not math.isfinite(loss.mean):  # a loss that nothing weighs is the task's to judge
        raise NonFiniteLoss(
            f"the loss is {loss.mean} at step {step}; the step was not applied",
            "lower the learning rate, set [train].clip_norm, or look for log(0), 0/0 or bad data in training_step",
        )


def _joined(private: Sequence[State], world_size: int) -> State:
    """The state of each of `world_size` ranks, out of those of another number of ranks; an only one as it is."""
    if len(private) == 1:
        return private[0]
    arrays: dict[str, Array] = {}
    for name, first in private[0].arrays.items():
        if any(name not in state.arrays or state.arrays[name].shape != first.shape for state in private):
            raise ProtocolError(f"the ranks saved different private states: {name}")
        if first.dtype.kind != "f":
            arrays[name] = first
            continue
        total = np.add.reduce([state.arrays[name].astype(np.float64) for state in private])
        parts = world_size if RESIDUAL in name and not name.startswith(INNER) else len(private)
        arrays[name] = (total / parts).astype(first.dtype)
    return State(arrays, private[0].extra)
