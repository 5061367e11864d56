"""Hooks on the trained parameters: which of them a step used, and that their gradients are dense."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from smlt.core.errors import TaskError
from smlt.frameworks.torch.flat import NAMED

WHY_DENSE = "every rank adds up flat gradients of one size; build the module with sparse=False"


class UsedParameters:
    """Notes in each backward which parameters got a gradient.

    Attributes:
        flags: a byte a parameter, in the order given; 1 where backward reached it since `clear`.
    """

    def __init__(self, named: Sequence[NAMED]) -> None:
        self.flags = bytearray(len(named))
        for place, (name, parameter) in enumerate(named):
            parameter.register_hook(_refuse_sparse(name))  # type: ignore[no-untyped-call]
            parameter.register_post_accumulate_grad_hook(self._mark(place))  # type: ignore[no-untyped-call]

    def clear(self) -> None:
        """Start a step."""
        self.flags[:] = bytes(len(self.flags))

    def _mark(self, place: int) -> Callable[[Tensor], None]:
        def mark(_: Tensor) -> None:
            self.flags[place] = 1

        return mark


def refuse_sparse_modules(model: nn.Module) -> None:
    """Raise TaskError for an embedding that gives sparse gradients."""
    for name, module in model.named_modules():
        if getattr(module, "sparse", False) is True:
            raise TaskError(
                f"{name or type(module).__name__} has sparse=True, and smlt trains on dense gradients", WHY_DENSE
            )


def _refuse_sparse(name: str) -> Callable[[Tensor], None]:
    def refuse(grad: Tensor) -> None:
        if grad.layout != torch.strided:
            raise TaskError(f"the gradient of {name} is sparse, and smlt trains on dense gradients", WHY_DENSE)

    return refuse
