"""Only the largest numbers travel, with their places."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from smlt.core.errors import ProtocolError
from smlt.core.sync.codecs.codec import Codec
from smlt.core.task import Array

SHARE = 100
"""One number in so many is sent."""


class TopK(Codec):
    """One number in a hundred, at least one: those of the largest magnitude, as they are; the others become 0.

    Sparse gradients, Aji & Heafield, EMNLP 2017. Exactly ceil(elements / 100) numbers are sent: their places (uint32,
    ascending), then the numbers. Among equals the first ones are sent; NaN counts as largest, so that it stays visible.
    """

    name: ClassVar[str] = "topk"

    def encoded_bytes(self, elements: int) -> int:
        """Eight bytes for each number that is sent."""
        return 8 * self._sent(elements)

    @staticmethod
    def _sent(elements: int) -> int:
        return -(-elements // SHARE)

    def _encode(self, values: Array, out: memoryview) -> None:
        count = self._sent(values.size)
        keys = values.view(np.uint32) & 0x7FFFFFFF
        places = np.sort(np.argsort(~keys, kind="stable")[:count])
        np.frombuffer(out, np.uint32, count)[:] = places
        np.frombuffer(out, np.float32, count, 4 * count)[:] = values[places]

    def _decode(self, data: memoryview, out: Array) -> None:
        count = self._sent(out.size)
        places = np.frombuffer(data, np.uint32, count)
        if count and places.max() >= out.size:
            raise ProtocolError(f"a number is sent for place {places.max()} of {out.size}")
        out.fill(0)
        out[places] = np.frombuffer(data, np.float32, count, 4 * count)
