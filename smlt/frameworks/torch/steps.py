"""The common way to compute and apply a step: the user's `training_step` a micro-batch, then the optimizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from smlt.core.task import Array, Indices, Reached, StepLoss, StepWork, seed_of, unheard
from smlt.frameworks.torch.blame import blame
from smlt.frameworks.torch.data import Batches
from smlt.frameworks.torch.flat import GradientViews
from smlt.frameworks.torch.front import Front
from smlt.frameworks.torch.losses import read_loss
from smlt.frameworks.torch.optimizers import Optimizers
from smlt.frameworks.torch.seeding import seed_everything
from smlt.frameworks.torch.watch import UsedParameters

if TYPE_CHECKING:
    from smlt.frameworks.torch.task import TorchTask


class Stepper(ABC):
    """How the loss of a step comes about and how it is applied; the rest of a step is `TorchTraining`'s."""

    @abstractmethod
    def compute(self, work: StepWork, gradients: GradientViews, used: Array, reached: Reached = unheard) -> StepLoss:
        """Fill the gradients with this rank's share of the global mean, or of what `divisor` makes one.

        Args:
            work: the step; the share may be empty.
            gradients: their memory is zero, and the parameters have none.
            used: int64 zeros, to become 1 for each parameter that has a gradient.
            reached: may be told how much of the first region is final.
        """

    @abstractmethod
    def divisor(self, work: StepWork, loss: StepLoss) -> float:
        """What the summed gradients are to be divided by."""

    @abstractmethod
    def apply(self, work: StepWork) -> None:
        """Apply the gradients that the parameters now have."""

    @abstractmethod
    def restart(self) -> None:
        """The step in hand is given up, or another state was loaded."""

    @abstractmethod
    def close(self) -> None:
        """There will be no more steps."""


def precision(name: str) -> AbstractContextManager[object]:
    """What `[train].precision` means around a forward pass."""
    return torch.autocast("cpu", torch.bfloat16) if name == "bf16" else nullcontext()


def micro_batches(indices: Indices, size: int | None) -> list[Indices]:
    """A rank's share in pieces of at most `size`."""
    size = size or max(1, len(indices))
    return [indices[start : start + size] for start in range(0, len(indices), size)]


class HookSteps(Stepper):
    """Steps made of the user's hooks."""

    def __init__(
        self,
        task: TorchTask,
        model: nn.Module,
        optimizers: Optimizers,
        data: Batches,
        watch: UsedParameters,
        front: Front,
    ) -> None:
        self._task, self._model, self._data, self._watch, self._front = task, model, data, watch, front
        self._optimizer = next(iter(optimizers.optimizers.values()))
        self._scheduler = optimizers.only_scheduler()
        self._denominator = 1.0

    def compute(self, work: StepWork, gradients: GradientViews, used: Array, reached: Reached = unheard) -> StepLoss:
        """One forward and backward a micro-batch."""
        context = self._task.context
        parts = micro_batches(work.indices, context.micro_batch)
        alone = (work.alone or context.world_size == 1) and len(parts) == 1
        self._denominator = float(work.global_batch)
        total = StepLoss(0.0, 0.0)
        self._watch.clear()
        gradients.attach()
        for place, part in enumerate(parts):
            batch = self._data.fetch(part, work.epoch)
            seed_everything(seed_of(context.seed, work.step, context.rank, place))
            with blame(self._task, "training_step"), precision(context.precision):
                returned = self._task.training_step(self._model, batch)
            gradients.check_untouched()
            gradients.attach()
            loss = read_loss(returned, len(part))
            report = loss.report()
            if alone and loss.weight > 0:
                self._denominator = loss.weight  # as in a plain loop, so that one worker gives its very bits
            total = StepLoss(total.sum + report.sum, total.weight + report.weight)
            following = self._front.told(reached) if place == len(parts) - 1 else nullcontext()
            with following, blame(self._task, "training_step", "backward of training_step's loss"):
                loss.share(self._denominator).backward()  # type: ignore[no-untyped-call]
            gradients.check_in_place()
        used[:] = np.frombuffer(self._watch.flags, np.uint8)
        return total

    def divisor(self, work: StepWork, loss: StepLoss) -> float:
        """Losses were divided by the denominator before backward; 1 where that was their weight."""
        return loss.weight / self._denominator

    def apply(self, work: StepWork) -> None:
        """The user's last word on the gradients, the optimizer, the scheduler."""
        with blame(self._task, "before_optimizer_step"):
            self._task.before_optimizer_step(self._model)
        with blame(self._task, "build_optimizer", f"{type(self._optimizer).__name__}.step"):
            self._optimizer.step()
        if self._scheduler is not None and (self._task.scheduler_interval == "step" or work.last_of_epoch):
            with blame(self._task, "build_optimizer", f"{type(self._scheduler).__name__}.step"):
                self._scheduler.step()

    def restart(self) -> None:
        """Nothing is kept between steps."""

    def close(self) -> None:
        """Nothing is held."""
