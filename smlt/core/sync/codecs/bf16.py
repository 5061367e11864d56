"""bfloat16: the upper half of a float32, rounded."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from smlt.core.sync.codecs.codec import Codec
from smlt.core.task import Array


class Bf16(Codec):
    """Two bytes a number: float32's range with 8 bits of precision, rounded to nearest, ties to even.

    NaN stays NaN and infinity stays; what rounds beyond 3.39e38 becomes infinite, as in any IEEE rounding.
    """

    name: ClassVar[str] = "bf16"

    def encoded_bytes(self, elements: int) -> int:
        """Two bytes a number, and two more after an odd number of them."""
        return -(-elements // 2) * 4

    def _encode(self, values: Array, out: memoryview) -> None:
        halves = np.frombuffer(out, np.uint16)
        halves[values.size :] = 0
        bits = values.view(np.uint32)
        rounded = (bits + (0x7FFF + (bits >> 16 & 1))) >> 16
        halves[: values.size] = np.where(np.isnan(values), bits >> 16 | 0x40, rounded)

    def _decode(self, data: memoryview, out: Array) -> None:
        np.left_shift(np.frombuffer(data, np.uint16, out.size).astype(np.uint32), 16, out=out.view(np.uint32))
