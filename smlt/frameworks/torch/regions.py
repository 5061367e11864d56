"""What a rank contributes in a step: gradients, float buffers, and one int64 region for what is counted or copied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smlt.core.task import Array, Region
from smlt.frameworks.torch.buffers import BufferSync, buffers_of
from smlt.frameworks.torch.flat import GradientViews, flat_gradients
from smlt.frameworks.torch.front import Front
from smlt.frameworks.torch.watch import UsedParameters, refuse_sparse_modules


@dataclass(frozen=True)
class Pieces:
    """The memory of one contribution, or of one sum, cut up."""

    gradients: Sequence[Array]
    buffer_floats: dict[str, Array]
    buffer_words: Array
    used: Array
    buffer_changed: Array


class Regions:
    """The regions of a model.

    Attributes:
        trained: the trained parameters by name, each once, in the model's order.
        frozen: the others.
        buffers: the model's buffers.
        front: how much of the first region is final in a backward pass.
        used: notes which parameters backward reaches.
    """

    def __init__(self, model: nn.Module) -> None:
        refuse_sparse_modules(model)
        self.trained = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
        self.frozen = [(name, each) for name, each in model.named_parameters() if not each.requires_grad]
        self._names = {id(parameter): name for name, parameter in self.trained}
        self._flats = flat_gradients(self.trained)
        self.buffers = BufferSync(buffers_of(model))
        self.front = Front(self._flats[0], [self._names[id(each)] for each in self._flats[0].parameters])
        self.used = UsedParameters([(self._names[id(each)], each) for flat in self._flats for each in flat.parameters])

    @property
    def parameters(self) -> int:
        """Number of trained scalars."""
        return sum(parameter.numel() for _, parameter in self.trained)

    def shape(self) -> tuple[Region, ...]:
        """Gradients, float buffers; int64: other buffers, flags of parameters used and float buffers changed."""
        return (
            *(flat.region for flat in self._flats),
            *(Region(dtype, elements) for dtype, elements in self.buffers.floats.items()),
            Region("int64", self.buffers.words + len(self.trained) + self.buffers.flags),
        )

    def weights_shape(self) -> tuple[Region, ...]:
        """Trained parameters, laid out as their gradients are, and float buffers."""
        return (
            *(flat.region for flat in self._flats),
            *(Region(dtype, elements) for dtype, elements in self.buffers.floats.items()),
        )

    def read_weights(self, out: Sequence[Array]) -> None:
        """Copy parameters and float buffers out."""
        for parameter, place in self._weights_in(out):
            place.copy_(parameter.detach())
        self.buffers.read_floats(dict(zip(self.buffers.floats, out[len(self._flats) :], strict=True)))

    def write_weights(self, values: Sequence[Array]) -> None:
        """Take parameters and float buffers over."""
        with torch.no_grad():
            for parameter, place in self._weights_in(values):
                parameter.copy_(place)
        self.buffers.write_floats(dict(zip(self.buffers.floats, values[len(self._flats) :], strict=True)))

    def _weights_in(self, memory: Sequence[Array]) -> Iterator[tuple[nn.Parameter, Tensor]]:
        for flat, array in zip(self._flats, memory, strict=False):
            yield from zip(flat.parameters, flat.views(array), strict=True)

    def cut(self, memory: Sequence[Array]) -> Pieces:
        """A contribution or its sum in its pieces."""
        gradients, rest, integers = memory[: len(self._flats)], memory[len(self._flats) : -1], memory[-1]
        words, flags = self.buffers.words, self.buffers.words + len(self.trained)
        floats = dict(zip(self.buffers.floats, rest, strict=True))
        return Pieces(gradients, floats, integers[:words], integers[words:flags], integers[flags:])

    def views(self, pieces: Pieces) -> GradientViews:
        """The gradients of the parameters, in the order of `pieces.used`."""
        return GradientViews(self._flats, pieces.gradients, self._names)
