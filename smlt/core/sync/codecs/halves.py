"""What the codecs of two bytes a number share: how the halves lie, and that they are made chunk by chunk."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from smlt.core.sync.codecs.chunks import chunks
from smlt.core.sync.codecs.codec import Codec
from smlt.core.task import Array


class Halves(Codec):
    """Two bytes a number, in order, and two bytes of 0 after an odd number of them."""

    def encoded_bytes(self, elements: int) -> int:
        """Two bytes a number, rounded up to a multiple of 4."""
        return -(-elements // 2) * 4

    def _encode(self, values: Array, out: memoryview) -> None:
        halves = _halves_of(values.size, out)
        for chunk in chunks(values.size):
            self._pack(values[chunk], halves[chunk])

    def _encode_with_feedback(self, values: Array, out: memoryview) -> None:
        halves = _halves_of(values.size, out)
        for chunk in chunks(values.size):
            self._pack_with_feedback(values[chunk], halves[chunk])

    def _decode(self, data: memoryview, out: Array) -> None:
        halves = np.frombuffer(data, np.uint16, out.size)
        for chunk in chunks(out.size):
            self._unpack(halves[chunk], out[chunk])

    @abstractmethod
    def _pack(self, values: Array, halves: Array) -> None:
        """A chunk of float32 into uint16."""

    @abstractmethod
    def _pack_with_feedback(self, values: Array, halves: Array) -> None:
        """As `_pack`; the values become what was lost."""

    @abstractmethod
    def _unpack(self, halves: Array, out: Array) -> None:
        """A chunk of uint16 into float32."""


def _halves_of(elements: int, out: memoryview) -> Array:
    halves = np.frombuffer(out, np.uint16)
    halves[elements:] = 0
    return halves[:elements]
