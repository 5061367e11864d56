"""What a training step returned: a mean, or a sum and its weight; what to call backward on, and what to report."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from smlt.core.errors import TaskError
from smlt.core.task import Loss, StepLoss

HINT = "return a scalar tensor, the mean over the batch, or smlt.Loss(sum, weight)"


class BatchLoss(NamedTuple):
    """The loss of one micro-batch.

    Attributes:
        tensor: a mean over the rows, or a sum.
        rows: how many rows the mean is over; None for a sum.
        weight: what the loss weighs: rows, or what the user says.
    """

    tensor: Tensor
    rows: int | None
    weight: float

    def report(self) -> StepLoss:
        """As a sum and its weight."""
        value = float(self.tensor.detach())
        return StepLoss(value if self.rows is None else value * self.rows, self.weight)

    def share(self, denominator: float) -> Tensor:
        """Its sum over the denominator; no arithmetic at all on a mean over that many rows."""
        if self.rows is None:
            return self.tensor / denominator
        return self.tensor if self.rows == denominator else self.tensor * (self.rows / denominator)


def read_loss(returned: Any, rows: int) -> BatchLoss:
    """The loss of a micro-batch of so many rows.

    Raises:
        TaskError: it is no scalar that depends on the parameters, or its weight is negative.
    """
    if isinstance(returned, Loss):
        weight = float(returned.weight)
        if not weight >= 0:
            raise TaskError(f"training_step returned a Loss of weight {weight}", "a weight counts what was summed")
        return BatchLoss(_scalar(returned.sum), None, weight)
    return BatchLoss(_scalar(returned), rows, float(rows))


def _scalar(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TaskError(f"training_step returned a {type(value).__name__} for a loss", HINT)
    if value.numel() != 1 or not value.is_floating_point():
        dtype = str(value.dtype).removeprefix("torch.")
        raise TaskError(f"training_step returned a loss of shape {list(value.shape)}, dtype {dtype}", HINT)
    if not value.requires_grad:
        raise TaskError(
            "training_step returned a loss that does not depend on the model's parameters",
            "neither detach it nor compute it under torch.no_grad",
        )
    return value if value.dim() == 0 else value.reshape(torch.Size())
