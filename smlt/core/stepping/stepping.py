"""What a way of stepping is: one rank's steps as transactions, from the building of its task on.

A round's sums, the state that all ranks share, and what each has of its own; no store, no clock, no messages.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from smlt.core.errors import NonFiniteLoss
from smlt.core.planner import Sync
from smlt.core.sampler import Schedule
from smlt.core.stepping.private import restore
from smlt.core.sync.collectives import Collective, Seat
from smlt.core.sync.header import Header
from smlt.core.task import Array, State, StepLoss, StepWork, TaskShape, TrainingTask


class Stepping(ABC):
    """One rank's steps.

    `compute`, then `exchange` where the protocol asks for it, then `commit`, or `forget` at any time before it: until
    `commit` nothing of the step is visible in `shared_state` or `private_state`, and `forget` leaves both as they were
    at the last commit or, where `sync.recovers_fast`, at the last one that ended an exchange. Rounds follow one
    another: after `forget`, `join` takes part in the next one.

    Args:
        task: built.
        shape: of the task.
        sync: mode, codec and what belongs to them.
    """

    def __init__(self, task: TrainingTask, shape: TaskShape, sync: Sync) -> None:
        self.task, self.shape, self.sync = task, shape, sync
        self._sums: Mapping[str, Collective] = {}
        self._loaded: Mapping[str, Array] = {}

    def check_course(self, schedule: Schedule, world_size: int) -> None:  # noqa: B027  exact steps suit any course
        """Look at the whole job before its first step.

        Raises:
            ConfigError: it cannot be stepped through in this way; the same on every rank.
        """

    def join(self, seat: Seat | None) -> None:
        """Take part in a round; None for a single rank.

        What codecs have lost goes on from the last commit, in the round before or in what was loaded since.

        Raises:
            ConfigError: the ranks cannot be joined in this way.
            TaskError: what was loaded is of another shape.
        """
        lost = self._lost()
        self._leave()
        self._loaded = lost
        self._sums = self._do_join(seat)
        restore(lost, self._lost())
        self._loaded = {}

    @abstractmethod
    def compute(self, work: StepWork) -> StepLoss:
        """Forward and backward over this rank's share."""

    @abstractmethod
    def exchange(self, header: Header, *, last: bool) -> Header:
        """Share with the other ranks; returns what all of them said.

        Args:
            header: what this rank says.
            last: whether the job ends with this step.

        Raises:
            NonFiniteLoss: this rank's own step cannot be applied.
            ProtocolError: ranks disagree.
            Whatever the seat's patience raises.
        """

    @abstractmethod
    def commit(self, step: int, loss: StepLoss) -> None:
        """Apply the step, whose loss this is.

        Raises:
            NonFiniteLoss: the loss is no number; nothing was applied.
        """

    def forget(self) -> None:
        """Give up the step in hand, computed or exchanged; the next one computed may be the same in another round."""
        for sums in self._sums.values():
            sums.forget()
        self._do_forget()

    @abstractmethod
    def shared_state(self) -> State:
        """What is equal on every rank at a commit."""

    @abstractmethod
    def private_state(self) -> State | None:
        """What only this rank has at a commit; None where there is nothing."""

    def offer(self) -> State:
        """What a rank that has lost its state begins anew with, beside this one: at an exchange, after `forget`."""
        return self.shared_state()

    def take(self, offered: State, world_size: int) -> None:
        """Begin anew with what another rank's `offer` gave; codecs have lost nothing then.

        Raises:
            As `load`.
        """
        self.load(offered, [], world_size)

    def load(self, shared: State, private: Sequence[State], world_size: int) -> None:
        """Take over a state, before `join`; a step in hand is forgotten, and so is the round.

        Args:
            shared: of all ranks.
            private: this rank's alone or, where the number of ranks was another one, those of all of them; empty where
                they had nothing. Several are shared out: deterministic, but not bit for bit.
            world_size: ranks now.

        Raises:
            ConfigError: the state is of another mode.
            TaskError: it does not fit the task; nothing was taken over.
        """
        lost = self._do_load(shared, private, world_size)
        self._leave()
        self._loaded = lost

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The model inside is the one that all ranks share; for evaluating and exporting it."""
        yield

    def close(self) -> None:
        """Stop whatever goes on in the round."""
        for sums in self._sums.values():
            sums.close()

    @abstractmethod
    def _do_join(self, seat: Seat | None) -> Mapping[str, Collective]:
        """The sums of a round, by what their residuals' names begin with."""

    @abstractmethod
    def _do_forget(self) -> None:
        """Bring the task back to the last commit."""

    @abstractmethod
    def _do_load(self, shared: State, private: Sequence[State], world_size: int) -> Mapping[str, Array]:
        """As `load`; returns what codecs had lost, by the names of `_lost`."""

    def _lost(self) -> Mapping[str, Array]:
        """What codecs have lost up to the last commit, by name; live arrays."""
        if not self._sums:
            return self._loaded
        return {prefix + name: array for prefix, sums in self._sums.items() for name, array in sums.private().items()}

    def _leave(self) -> None:
        """End the round before, in which a step may still be in hand."""
        for sums in self._sums.values():
            sums.forget()
        self.close()
        self._sums = {}


def check_finite(step: int, loss: StepLoss) -> None:
    """Raise NonFiniteLoss if the loss is no number; one that nothing weighs is the task's to judge."""
    if loss.weight and not math.isfinite(loss.mean):
        raise NonFiniteLoss(
            f"the loss is {loss.mean} at step {step}; the step was not applied",
            "lower the learning rate, set [train].clip_norm, or look for log(0), 0/0 or bad data in training_step",
        )
