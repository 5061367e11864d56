"""A model's buffers in a step: kept from a forward pass's changes, contributed, and agreed upon at the commit.

Float buffers are averaged over the ranks in regions of their own. All others travel as bytes in words of 64 bits, rank
0's alone, so that their sum over the ranks is rank 0's value bit for bit. A float buffer that no rank changed stays
as it is: a mask or a table of positions must not drift by rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from smlt.core.errors import TaskError
from smlt.core.task import Array
from smlt.frameworks.torch.memory import array_of, copy_into

WORD_BYTES = 8
_WIDE = {torch.float64, torch.complex128}


@dataclass(frozen=True)
class Buffer:
    """One buffer, by where it hangs: a forward pass may put another tensor in its place."""

    name: str
    module: nn.Module
    key: str

    @property
    def tensor(self) -> Tensor:
        """The tensor there now; raises TaskError if there is none."""
        tensor = self.module._buffers.get(self.key)
        if tensor is None:
            raise TaskError(f"the buffer {self.name} has gone", "keep a model's buffers as build_model made them")
        return tensor


def buffers_of(model: nn.Module) -> list[Buffer]:
    """All buffers of a model, each tensor once.

    Raises:
        TaskError: one is no dense tensor on the CPU.
    """
    found: dict[int, Buffer] = {}
    for prefix, module in model.named_modules():
        for key, tensor in module._buffers.items():
            if tensor is None or id(tensor) in found:
                continue
            name = f"{prefix}.{key}" if prefix else key
            if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
                raise TaskError(f"the buffer {name} is no dense tensor on the CPU")
            found[id(tensor)] = Buffer(name, module, key)
    return list(found.values())


@dataclass(frozen=True)
class Kept:
    """A buffer as it was at the start of a step."""

    buffer: Buffer
    tensor: Tensor
    value: Tensor

    def changed(self) -> bool:
        """Whether it differs now; raises TaskError if its shape or dtype does."""
        now = self.buffer.tensor
        if now.shape != self.value.shape or now.dtype != self.value.dtype:
            raise TaskError(
                f"the buffer {self.buffer.name} changed from {self.value.dtype}{list(self.value.shape)} "
                f"to {now.dtype}{list(now.shape)} in a step",
                "a buffer keeps its shape and dtype while it trains",
            )
        return not torch.equal(now, self.value)

    def restore(self) -> None:
        """Make it as it was, the tensor object included."""
        with torch.no_grad():
            self.tensor.copy_(self.value)
        self.buffer.module._buffers[self.buffer.key] = self.tensor


class BufferSync:
    """The buffers of a model and their places in a contribution.

    Attributes:
        floats: elements that the float buffers need, by the dtype of their region.
        words: 64-bit words that the other buffers need.
        flags: how many flags say whether a float buffer changed.
    """

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        self._all = buffers
        self._floats = [each for each in buffers if _is_float(each.tensor) and each.tensor.numel()]
        self._others = [each for each in buffers if not _is_float(each.tensor)]
        self.floats: dict[str, int] = {}
        for buffer in self._floats:
            dtype = _region_dtype(buffer.tensor)
            self.floats[dtype] = self.floats.get(dtype, 0) + _reals(buffer.tensor).numel()
        self.words = sum(_words(buffer.tensor) for buffer in self._others)
        self.flags = len(self._floats)

    @contextmanager
    def untouched(self) -> Iterator[dict[str, Kept]]:
        """Whatever happens inside, the buffers are as before at the end."""
        kept = {each.name: Kept(each, each.tensor, each.tensor.detach().clone()) for each in self._all}
        try:
            yield kept
        finally:
            for one in kept.values():
                one.restore()

    def contribute(
        self, kept: dict[str, Kept], floats: dict[str, Array], words: Array, flags: Array, first: bool
    ) -> None:
        """Write this rank's buffers as they are now, inside `untouched`.

        Args:
            kept: what `untouched` gave.
            floats: zeroed memory, by dtype.
            words, flags: zeroed int64.
            first: whether this is rank 0.
        """
        for place, (buffer, piece) in enumerate(self._float_pieces(floats)):
            flags[place] = kept[buffer.name].changed()
            torch.from_numpy(piece).copy_(_reals(buffer.tensor).reshape(-1))
        for buffer, piece in self._other_pieces(words):
            kept[buffer.name].changed()
            if first:
                piece[:] = np.frombuffer(array_of(buffer.tensor).tobytes(), np.uint8)

    def agree(self, floats: dict[str, Array], words: Array, flags: Array, world_size: int) -> None:
        """Take over the sums over all ranks: means of the float buffers that any rank changed, rank 0's others."""
        for changed, (buffer, piece) in zip(flags, self._float_pieces(floats), strict=True):
            if changed:
                mean = torch.from_numpy(piece)
                if world_size > 1:
                    mean = mean * (1 / world_size)
                with torch.no_grad():
                    _reals(buffer.tensor).copy_(mean.view(_reals(buffer.tensor).shape))
        for buffer, piece in self._other_pieces(words):
            target = array_of(buffer.tensor)
            copy_into(buffer.tensor, piece.copy().view(target.dtype).reshape(target.shape))

    def read_floats(self, floats: dict[str, Array]) -> None:
        """Copy the float buffers out, by dtype."""
        for buffer, piece in self._float_pieces(floats):
            torch.from_numpy(piece).copy_(_reals(buffer.tensor).reshape(-1))

    def write_floats(self, floats: dict[str, Array]) -> None:
        """Take the float buffers over, by dtype."""
        with torch.no_grad():
            for buffer, piece in self._float_pieces(floats):
                _reals(buffer.tensor).copy_(torch.from_numpy(piece).view(_reals(buffer.tensor).shape))

    def _float_pieces(self, floats: dict[str, Array]) -> Iterator[tuple[Buffer, Array]]:
        starts = dict.fromkeys(floats, 0)
        for buffer in self._floats:
            dtype, elements = _region_dtype(buffer.tensor), _reals(buffer.tensor).numel()
            start = starts[dtype]
            yield buffer, floats[dtype][start : start + elements]
            starts[dtype] = start + elements

    def _other_pieces(self, words: Array) -> Iterator[tuple[Buffer, Array]]:
        memory, start = words.view(np.uint8), 0
        for buffer in self._others:
            yield buffer, memory[start : start + buffer.tensor.nbytes]
            start += _words(buffer.tensor) * WORD_BYTES


def _is_float(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _region_dtype(tensor: Tensor) -> str:
    return "float64" if tensor.dtype in _WIDE else "float32"


def _reals(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _words(tensor: Tensor) -> int:
    return -(-tensor.nbytes // WORD_BYTES)
