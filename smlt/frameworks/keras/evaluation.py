"""Evaluation: the `eval_step` over a rank's share, changing nothing; the metrics from all ranks' parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from smlt.core.task import EvalPart, Indices, seed_of
from smlt.frameworks.evaluation import EVALUATION, EvalSums, Values, checked_output, metrics_of
from smlt.frameworks.keras.blame import blame
from smlt.frameworks.keras.buffers import Buffers
from smlt.frameworks.keras.compiled import CompiledStep
from smlt.frameworks.keras.data import Batches

if TYPE_CHECKING:
    from smlt.frameworks.keras.task import KerasTask


class Evaluation:
    """A task's evaluation.

    Args:
        task, model, data: what to evaluate.
        buffers: seeded before each batch and left as they are.
        raw: whether the outputs themselves are wanted, for the user's `eval_end`.
    """

    def __init__(self, task: KerasTask, model: Any, data: Batches, buffers: Buffers, raw: bool) -> None:
        self._task, self._data, self._buffers, self._raw = task, data, buffers, raw
        self._step = CompiledStep(
            lambda batch: _named(task.eval_step(model, batch)), "eval_step", model.run_eagerly, buffers.notice
        )

    @property
    def examples(self) -> int:
        """Length of the evaluation data."""
        return self._data.length

    def share(self, indices: Indices) -> EvalPart:
        """One rank's part, evaluated `task.eval_batch` examples at a time."""
        sums = EvalSums(VALUES, self._raw)
        with self._buffers.untouched():
            for start in range(0, len(indices), self._task.eval_batch):
                chunk = indices[start : start + self._task.eval_batch]
                sums.add(self._evaluate(chunk), len(chunk))
        return sums.part()

    def finish(self, parts: Sequence[EvalPart]) -> dict[str, float]:
        """The metrics of all ranks' parts: means, or what the user's `eval_end` makes of the outputs."""
        return metrics_of(parts, VALUES, self._eval_end if self._raw else None)

    def _eval_end(self, outputs: list[dict[str, Any]]) -> Any:
        with blame(self._task, "eval_end"):
            return self._task.eval_end(outputs)

    def _evaluate(self, chunk: Indices) -> Mapping[str, Any]:
        batch = self._data.fetch(chunk, EVALUATION)
        with blame(self._task, "eval_step"):
            self._buffers.seed(seed_of(self._task.context.seed, EVALUATION, int(chunk[0])))
            output: Mapping[str, Any] = self._step(batch)
        return output


def _named(output: Any) -> dict[str, Any]:
    return {str(name): value for name, value in checked_output(output).items()}


def _scalar(value: Any) -> float:
    array = np.asarray(value)
    if array.size != 1:
        raise TypeError(f"shape {list(array.shape)}")
    return float(array.reshape(()))


def _portable(value: Any) -> Any:
    if not (tf.is_tensor(value) or isinstance(value, np.ndarray)):
        return value
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == tf.bfloat16.as_numpy_dtype else array.copy()


VALUES = Values(_scalar, _portable)
