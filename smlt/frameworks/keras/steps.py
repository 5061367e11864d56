"""Forward and backward of a rank's share: the user's `training_step`, a micro-batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from smlt.core.errors import TaskError
from smlt.core.task import Array, Indices, Loss, StepLoss, StepWork, seed_of
from smlt.frameworks.keras.blame import blame
from smlt.frameworks.keras.buffers import Buffers
from smlt.frameworks.keras.compiled import CompiledStep
from smlt.frameworks.keras.data import Batches
from smlt.frameworks.keras.variables import raw

if TYPE_CHECKING:
    from smlt.frameworks.keras.task import KerasTask

HINT = "return a scalar tensor, the mean over the batch, or smlt.Loss(sum, weight)"


class Steps:
    """How the loss of a step and its gradients come about.

    Args:
        task, model, data: what to train.
        buffers: seeded before each forward pass.
        trained: Keras' variables, in the order of the gradients' region.
    """

    def __init__(self, task: KerasTask, model: Any, data: Batches, buffers: Buffers, trained: Sequence[Any]) -> None:
        self._task, self._model, self._data, self._buffers = task, model, data, buffers
        self._trained = raw(trained)
        self._ends = np.cumsum([each.shape.num_elements() for each in self._trained])
        self._backward = CompiledStep(self._forward_and_backward, "training_step", model.run_eagerly, buffers.notice)
        self._alone = False

    def warm_up(self, rows: Indices) -> None:
        """Trace and run a step on a few examples and forget it, so that READY means ready; inside `untouched`."""
        work = StepWork(0, 0, rows, len(rows))
        self.compute(work, np.zeros(self._ends[-1], np.float32), np.zeros(len(self._trained), np.int64))

    def compute(self, work: StepWork, gradients: Array, used: Array) -> StepLoss:
        """Fill the gradients with this rank's share of the global mean, or of what `divisor` makes one.

        Args:
            work: the step; the share may be empty.
            gradients: zeroed float32.
            used: int64 zeros, to become 1 for each variable that has a gradient.
        """
        context = self._task.context
        size = context.micro_batch or max(1, len(work.indices))
        parts = [work.indices[start : start + size] for start in range(0, len(work.indices), size)]
        self._alone = len(parts) == 1 and (work.alone or context.world_size == 1)
        total = StepLoss(0.0, 0.0)
        for place, part in enumerate(parts):
            batch = self._data.fetch(part, work.epoch)
            with blame(self._task, "training_step"):
                self._buffers.seed(seed_of(context.seed, work.step, context.rank, place))
                outcome = self._backward(batch, len(part), 0 if self._alone else work.global_batch)
            loss = self._gather(outcome, gradients, used)
            total = StepLoss(total.sum + loss.sum, total.weight + loss.weight)
        return total

    def divisor(self, work: StepWork, loss: StepLoss) -> float:
        """What the summed gradients are to be divided by: 1 where the global batch was their weight."""
        return 1.0 if self._alone else loss.weight / work.global_batch

    def _forward_and_backward(self, batch: Any, rows: Any, divisor: Any) -> tuple[Any, Any, Any, list[Any]]:
        """Loss, weight, whether the loss is a sum, gradients.

        A divisor of 0 stands for the loss's own weight: then the gradient is that of a plain loop's mean, to the bit.
        """
        with tf.GradientTape() as tape:
            returned = self._task.training_step(self._model, batch)
            summed = isinstance(returned, Loss)
            value = _scalar(returned.sum if isinstance(returned, Loss) else returned)
            weight = tf.cast(returned.weight, tf.float32) if isinstance(returned, Loss) else rows
            divisor = tf.where(divisor > 0, divisor, weight)
            share = tf.math.divide_no_nan(value, divisor) if summed else value * (weight / divisor)
        gradients = tape.gradient(share, self._trained)
        if all(gradient is None for gradient in gradients):
            raise TaskError(
                "training_step returned a loss that does not depend on the model's trainable variables",
                "call the model inside training_step, and keep to operations that have gradients",
            )
        dense = [None if each is None else tf.convert_to_tensor(each) for each in gradients]
        return value, weight, tf.constant(summed), dense

    def _gather(self, outcome: tuple[Any, Any, Any, list[Any]], gradients: Array, used: Array) -> StepLoss:
        value, weight, summed, mine = outcome
        for place, (gradient, end) in enumerate(zip(mine, self._ends, strict=True)):
            if gradient is not None:
                array = np.asarray(gradient).reshape(-1)
                gradients[end - array.size : end] += array
                used[place] = 1
        weighed = float(weight)
        if not weighed >= 0:
            raise TaskError(f"training_step returned a Loss of weight {weighed}", "a weight counts what was summed")
        return StepLoss(float(value) if summed else float(value) * weighed, weighed)


def _scalar(value: Any) -> Any:
    if not tf.is_tensor(value):
        raise TaskError(f"training_step returned a {type(value).__name__} for a loss", HINT)
    if value.shape.num_elements() != 1 or not value.dtype.is_floating:
        raise TaskError(f"training_step returned a loss of shape {list(value.shape)}, dtype {value.dtype.name}", HINT)
    return tf.cast(tf.reshape(value, ()), tf.float32)
