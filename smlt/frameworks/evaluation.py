"""Evaluation as every framework has it: what `eval_step` returned, added up, and the metrics from all ranks' parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smlt.core.errors import TaskError
from smlt.core.task import EvalPart, Metric, mean_metrics

EVALUATION = 1 << 62
"""Stands for the epoch in the seeds of evaluation, so that they meet those of no training epoch."""

HINT = "return a scalar mean or smlt.Metric(sum, weight); for anything else override eval_end(self, outputs)"


@dataclass(frozen=True)
class Values:
    """What a framework's tensors are.

    Attributes:
        scalar: a number from a tensor of one element or anything like it; raises TypeError or ValueError otherwise.
        portable: what outlives the step and can be sent: arrays for tensors, everything else as it is.
    """

    scalar: Callable[[Any], float]
    portable: Callable[[Any], Any]

    def number(self, hook: str, name: str, value: Any) -> float:
        """The number that a hook returned under a name; raises TaskError if it is none."""
        try:
            return self.scalar(value)
        except (TypeError, ValueError) as error:
            raise TaskError(f"{hook} returned no number for {name!r}: {error}", HINT) from error


class EvalSums:
    """One rank's part of an evaluation, batch after batch.

    Args:
        values: of the framework.
        raw: whether the outputs themselves are wanted, for the user's `eval_end`.
    """

    def __init__(self, values: Values, raw: bool) -> None:
        self._values, self._raw = values, raw
        self._sums: dict[str, tuple[float, float]] = {}
        self._outputs: list[dict[str, Any]] = []

    def add(self, output: Mapping[Any, Any], rows: int) -> None:
        """What `eval_step` returned for a batch of so many rows; a mean weighs as much as the batch is long."""
        if self._raw:
            self._outputs.append({str(name): self._portable(value) for name, value in output.items()})
            return
        for key, value in output.items():
            name = str(key)
            before = self._sums.get(name, (0.0, 0.0))
            total, weight = self._weighed(name, value, rows)
            self._sums[name] = (before[0] + total, before[1] + weight)

    def part(self) -> EvalPart:
        """The sums, or the outputs in their order."""
        return EvalPart(self._sums, tuple(self._outputs))

    def _weighed(self, name: str, value: Any, rows: int) -> tuple[float, float]:
        number = self._values.number
        if isinstance(value, Metric):
            return number("eval_step", name, value.sum), number("eval_step", name, value.weight)
        return number("eval_step", name, value) * rows, float(rows)

    def _portable(self, value: Any) -> Any:
        if isinstance(value, Metric):
            return Metric(float(value.sum), float(value.weight))
        return self._values.portable(value)


def checked_output(output: Any) -> Mapping[Any, Any]:
    """What `eval_step` returned; raises TaskError if it is no map."""
    if not isinstance(output, Mapping):
        raise TaskError(f"eval_step returned a {type(output).__name__}", 'return {"name": …}')
    return output


def metrics_of(
    parts: Sequence[EvalPart], values: Values, eval_end: Callable[[list[dict[str, Any]]], Any] | None
) -> dict[str, float]:
    """The metrics of all ranks' parts: means, or what the user's `eval_end`, where given, makes of the outputs."""
    if eval_end is None:
        return mean_metrics(parts)
    metrics = eval_end([output for part in parts for output in part.outputs])
    if not isinstance(metrics, Mapping):
        raise TaskError(f"eval_end returned a {type(metrics).__name__}", 'return {"name": number}')
    return {str(name): values.number("eval_end", str(name), value) for name, value in metrics.items()}
