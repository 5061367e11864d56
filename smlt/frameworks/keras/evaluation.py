"""Evaluation: the `eval_step` over a rank's share, changing nothing; the metrics from all ranks' parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from smlt.core.errors import TaskError
from smlt.core.task import EvalPart, Indices, Metric, mean_metrics, seed_of
from smlt.frameworks.keras.blame import blame
from smlt.frameworks.keras.buffers import Buffers
from smlt.frameworks.keras.compiled import CompiledStep
from smlt.frameworks.keras.data import Batches
from smlt.frameworks.keras.seeding import EVALUATION

if TYPE_CHECKING:
    from smlt.frameworks.keras.task import KerasTask

HINT = "return a scalar mean or smlt.Metric(sum, weight); for anything else override eval_end(self, outputs)"


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
            lambda batch: _checked(task.eval_step(model, batch)), "eval_step", model.run_eagerly, buffers.notice
        )

    @property
    def examples(self) -> int:
        """Length of the evaluation data."""
        return self._data.length

    def share(self, indices: Indices) -> EvalPart:
        """One rank's part, evaluated `task.eval_batch` examples at a time."""
        sums: dict[str, tuple[float, float]] = {}
        outputs: list[dict[str, Any]] = []
        with self._buffers.untouched():
            for start in range(0, len(indices), self._task.eval_batch):
                chunk = indices[start : start + self._task.eval_batch]
                output = self._evaluate(chunk)
                if self._raw:
                    outputs.append({str(name): _portable(value) for name, value in output.items()})
                    continue
                for name, value in output.items():
                    before = sums.get(str(name), (0.0, 0.0))
                    total, weight = _weighed(str(name), value, len(chunk))
                    sums[str(name)] = (before[0] + total, before[1] + weight)
        return EvalPart(sums, tuple(outputs))

    def finish(self, parts: Sequence[EvalPart]) -> dict[str, float]:
        """The metrics of all ranks' parts: means, or what the user's `eval_end` makes of the outputs."""
        if not self._raw:
            return mean_metrics(parts)
        outputs = [output for part in parts for output in part.outputs]
        with blame(self._task, "eval_end"):
            metrics = self._task.eval_end(outputs)
        if not isinstance(metrics, Mapping):
            raise TaskError(f"eval_end returned a {type(metrics).__name__}", 'return {"name": number}')
        return {str(name): _number("eval_end", str(name), value) for name, value in metrics.items()}

    def _evaluate(self, chunk: Indices) -> Mapping[str, Any]:
        batch = self._data.fetch(chunk, EVALUATION)
        with blame(self._task, "eval_step"):
            self._buffers.seed(seed_of(self._task.context.seed, EVALUATION, int(chunk[0])))
            output: Mapping[str, Any] = self._step(batch)
        return output


def _checked(output: Any) -> dict[str, Any]:
    if not isinstance(output, Mapping):
        raise TaskError(f"eval_step returned a {type(output).__name__}", 'return {"name": …}')
    return {str(name): value for name, value in output.items()}


def _weighed(name: str, value: Any, rows: int) -> tuple[float, float]:
    if isinstance(value, Metric):
        return _number("eval_step", name, value.sum), _number("eval_step", name, value.weight)
    return _number("eval_step", name, value) * rows, float(rows)


def _number(hook: str, name: str, value: Any) -> float:
    try:
        array = np.asarray(value)
        if array.size != 1:
            raise TypeError(f"shape {list(array.shape)}")
        return float(array.reshape(()))
    except (TypeError, ValueError) as error:
        raise TaskError(f"{hook} returned no number for {name!r}: {error}", HINT) from error


def _portable(value: Any) -> Any:
    if isinstance(value, Metric):
        return Metric(float(value.sum), float(value.weight))
    if not (tf.is_tensor(value) or isinstance(value, np.ndarray)):
        return value
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == tf.bfloat16.as_numpy_dtype else array.copy()
