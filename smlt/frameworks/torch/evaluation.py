"""Evaluation: the user's `eval_step` over a rank's share, changing nothing; the metrics from all ranks' parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from smlt.core.errors import TaskError
from smlt.core.task import EvalPart, Indices, Metric, mean_metrics, seed_of
from smlt.frameworks.torch.blame import blame
from smlt.frameworks.torch.buffers import BufferSync
from smlt.frameworks.torch.data import Batches
from smlt.frameworks.torch.memory import NUMPY_DTYPES
from smlt.frameworks.torch.seeding import EVALUATION, seed_everything

if TYPE_CHECKING:
    from smlt.frameworks.torch.task import TorchTask

HINT = "return a scalar mean or smlt.Metric(sum, weight); for anything else override eval_end(self, outputs)"


@contextmanager
def evaluating(model: nn.Module, buffers: BufferSync) -> Iterator[None]:
    """Evaluation mode without gradients; each module's mode and all buffers are as before afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    with buffers.untouched(), torch.no_grad():
        model.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training


def evaluate_share(task: TorchTask, model: nn.Module, data: Batches, indices: Indices, raw: bool) -> EvalPart:
    """One rank's part.

    Args:
        task, model, data: what to evaluate.
        indices: this rank's share, evaluated `task.eval_batch` at a time.
        raw: whether the outputs themselves are wanted, for the user's `eval_end`.
    """
    sums: dict[str, tuple[float, float]] = {}
    outputs: list[dict[str, Any]] = []
    for start in range(0, len(indices), task.eval_batch):
        chunk = indices[start : start + task.eval_batch]
        batch = data.fetch(chunk, EVALUATION)
        seed_everything(seed_of(task.context.seed, EVALUATION, int(chunk[0])))
        with blame(task, "eval_step"):
            output = task.eval_step(model, batch)
        if not isinstance(output, Mapping):
            raise TaskError(f"eval_step returned a {type(output).__name__}", 'return {"name": …}')
        if raw:
            outputs.append({str(name): _portable(value) for name, value in output.items()})
            continue
        for name, value in output.items():
            before = sums.get(str(name), (0.0, 0.0))
            total, weight = _weighed(str(name), value, len(chunk))
            sums[str(name)] = (before[0] + total, before[1] + weight)
    return EvalPart(sums, tuple(outputs))


def finish(task: TorchTask, parts: Sequence[EvalPart], raw: bool) -> dict[str, float]:
    """The metrics of all ranks' parts: means, or what the user's `eval_end` makes of the outputs."""
    if not raw:
        return mean_metrics(parts)
    outputs = [output for part in parts for output in part.outputs]
    with blame(task, "eval_end"):
        metrics = task.eval_end(outputs)
    if not isinstance(metrics, Mapping):
        raise TaskError(f"eval_end returned a {type(metrics).__name__}", 'return {"name": number}')
    return {str(name): _number("eval_end", str(name), value) for name, value in metrics.items()}


def _weighed(name: str, value: Any, rows: int) -> tuple[float, float]:
    if isinstance(value, Metric):
        return _number("eval_step", name, value.sum), _number("eval_step", name, value.weight)
    return _number("eval_step", name, value) * rows, float(rows)


def _number(hook: str, name: str, value: Any) -> float:
    try:
        if isinstance(value, Tensor) and value.numel() != 1:
            raise TypeError(f"shape {list(value.shape)}")
        return float(value)
    except (TypeError, ValueError) as error:
        raise TaskError(f"{hook} returned no number for {name!r}: {error}", HINT) from error


def _portable(value: Any) -> Any:
    if isinstance(value, Metric):
        return Metric(float(value.sum), float(value.weight))
    if isinstance(value, Tensor):
        value = value.detach()
        return (value if value.dtype in NUMPY_DTYPES else value.float()).contiguous().numpy().copy()
    return np.copy(value) if isinstance(value, np.ndarray) else value
