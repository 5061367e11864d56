"""Flat gradients: one region a dtype, in which every trained parameter has its slice; `p.grad` are views of it.

Nothing is flattened or copied: backward accumulates straight into the memory that the engine sends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from smlt.core.errors import TaskError
from smlt.core.task import Array, Region

ALIGNMENT = 16
"""Elements; a slice of float32 starts on a cache line."""

REGION_DTYPES = {torch.float32: "float32", torch.float64: "float64"}

NAMED = tuple[str, nn.Parameter]


def aligned(elements: int) -> int:
    """The next multiple of the alignment."""
    return -(-elements // ALIGNMENT) * ALIGNMENT


class FlatGradients:
    """The trained parameters of one dtype and their places in a region.

    They lie in reverse order of the model's, which is about the order in which backward finishes them, so that the
    engine can send the front of a region while backward still works on its end.
    """

    def __init__(self, named: Sequence[NAMED], dtype: torch.dtype) -> None:
        self.parameters = [parameter for _, parameter in reversed(named)]
        self._places: list[tuple[tuple[int, ...], tuple[int, ...], int]] = []
        offset = 0
        for parameter in self.parameters:
            self._places.append((tuple(parameter.shape), _grad_strides(parameter), offset))
            offset += aligned(parameter.numel())
        self.region = Region(REGION_DTYPES[dtype], offset, tolerant=True)

    @property
    def ends(self) -> list[int]:
        """Where the slice of each parameter ends."""
        return [*(offset for _, _, offset in self._places[1:]), self.region.elements]

    def views(self, memory: Array) -> list[Tensor]:
        """One view a parameter of the region's memory, in `parameters` order; about 1 us each."""
        flat = torch.from_numpy(memory)
        return [flat.as_strided(*place) for place in self._places]


def flat_gradients(named: Sequence[NAMED]) -> list[FlatGradients]:
    """The regions that a model's trained parameters need, float32 first.

    Raises:
        TaskError: there are none, or one is of a dtype that gradients cannot be summed in.
    """
    if not named:
        raise TaskError("the model has no parameters to train", "leave requires_grad on for some of its parameters")
    for name, parameter in named:
        if parameter.dtype not in REGION_DTYPES:
            dtype = str(parameter.dtype).removeprefix("torch.")
            raise TaskError(
                f"the parameter {name} is {dtype}, and smlt trains float32 and float64 parameters",
                'keep fp32 parameters (model.float()) and use [train].precision = "bf16" for speed',
            )
    kinds = [(dtype, [pair for pair in named if pair[1].dtype == dtype]) for dtype in REGION_DTYPES]
    return [FlatGradients(pairs, dtype) for dtype, pairs in kinds if pairs]


def _grad_strides(parameter: Tensor) -> tuple[int, ...]:
    """Strides as backward itself would choose: the parameter's where it is dense (channels_last, too), else C order."""
    expected = 1
    for stride, size in sorted(zip(parameter.stride(), parameter.shape, strict=True)):
        if size > 1 and stride != expected:
            return torch.empty(parameter.shape, device="meta").stride()
        expected *= size
    return parameter.stride()


class GradientViews:
    """The gradients of one step in the memory of its regions: attached to the parameters, guarded, let go.

    Args:
        flats: the regions.
        memory: of each region.
        names: of the parameters, by their id, for errors.
    """

    def __init__(self, flats: Sequence[FlatGradients], memory: Sequence[Array], names: Mapping[int, str]) -> None:
        self._names = names
        views = [flat.views(array) for flat, array in zip(flats, memory, strict=True)]
        self._pairs = [
            pair for flat, mine in zip(flats, views, strict=True) for pair in zip(flat.parameters, mine, strict=True)
        ]
        self._witnesses = [mine[0] for mine in views]  # all views of one region share its version counter
        self._versions = self._read_versions()

    @property
    def pairs(self) -> Sequence[tuple[nn.Parameter, Tensor]]:
        """Parameters and their views."""
        return self._pairs

    def attach(self) -> None:
        """Let backward accumulate into the region, also after a zero_grad that set gradients to None."""
        for parameter, view in self._pairs:
            if parameter.grad is not view:
                parameter.grad = view

    def check_untouched(self) -> None:
        """Raise TaskError if gradients changed since the last backward of smlt's own."""
        if self._read_versions() != self._versions:
            raise TaskError(
                "training_step changed gradients",
                "return the loss and leave backward, zero_grad and the optimizer's step to smlt; "
                "a loop of your own goes into loop(self, ctx)",
            )

    def check_in_place(self) -> None:
        """Raise TaskError if a gradient left its region during backward."""
        for parameter, view in self._pairs:
            grad = parameter.grad
            if grad is not view and (grad is None or grad.data_ptr() != view.data_ptr()):
                raise TaskError(
                    f"the gradient of {self._names[id(parameter)]} was replaced during backward",
                    "hooks may change a gradient in place, but not set p.grad",
                )
        self._versions = self._read_versions()

    def detach(self) -> None:
        """Let go of the memory."""
        for parameter, _ in self._pairs:
            parameter.grad = None

    def _read_versions(self) -> list[int]:
        return [view._version for view in self._witnesses]
