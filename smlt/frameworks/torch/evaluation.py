"""Evaluation: the user's `eval_step` over a rank's share, changing nothing; the metrics from all ranks' parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from smlt.core.task import EvalPart, Indices, seed_of
from smlt.frameworks.evaluation import EVALUATION, EvalSums, Values, checked_output, metrics_of
from smlt.frameworks.torch.blame import blame
from smlt.frameworks.torch.buffers import BufferSync
from smlt.frameworks.torch.data import Batches
from smlt.frameworks.torch.memory import NUMPY_DTYPES
from smlt.frameworks.torch.seeding import seed_everything

if TYPE_CHECKING:
    from smlt.frameworks.torch.task import TorchTask


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
    sums = EvalSums(VALUES, raw)
    for start in range(0, len(indices), task.eval_batch):
        chunk = indices[start : start + task.eval_batch]
        batch = data.fetch(chunk, EVALUATION)
        seed_everything(seed_of(task.context.seed, EVALUATION, int(chunk[0])))
        with blame(task, "eval_step"):
            output = task.eval_step(model, batch)
        sums.add(checked_output(output), len(chunk))
    return sums.part()


def finish(task: TorchTask, parts: Sequence[EvalPart], raw: bool) -> dict[str, float]:
    """The metrics of all ranks' parts: means, or what the user's `eval_end` makes of the outputs."""

    def eval_end(outputs: list[dict[str, Any]]) -> Any:
        with blame(task, "eval_end"):
            return task.eval_end(outputs)

    return metrics_of(parts, VALUES, eval_end if raw else None)


def _scalar(value: Any) -> float:
    if isinstance(value, Tensor) and value.numel() != 1:
        raise TypeError(f"shape {list(value.shape)}")
    return float(value)


def _portable(value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.detach()
        return (value if value.dtype in NUMPY_DTYPES else value.float()).contiguous().numpy().copy()
    return np.copy(value) if isinstance(value, np.ndarray) else value


VALUES = Values(_scalar, _portable)
