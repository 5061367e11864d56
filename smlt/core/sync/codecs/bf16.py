"""bfloat16: the upper half of a float32, rounded."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from smlt.core.sync.codecs.chunks import scratch
from smlt.core.sync.codecs.halves import Halves
from smlt.core.sync.names import CodecName
from smlt.core.task import Array


class Bf16(Halves):
    """Two bytes a number: float32's range with 8 bits of precision, rounded to nearest, ties to even.

    NaN stays NaN and infinity stays; what rounds beyond 3.39e38 becomes infinite, as in any IEEE rounding.
    """

    name: ClassVar[CodecName] = "bf16"

    def _pack(self, values: Array, halves: Array) -> None:
        rounded = _rounded(values)
        np.right_shift(rounded, 16, out=rounded)
        np.copyto(halves, rounded, casting="unsafe")

    def _pack_with_feedback(self, values: Array, halves: Array) -> None:
        rounded = _rounded(values)
        upper = scratch(values.size)[1]
        np.right_shift(rounded, 16, out=upper)
        np.copyto(halves, upper, casting="unsafe")
        np.bitwise_and(rounded, 0xFFFF0000, out=rounded)
        np.subtract(values, rounded.view(np.float32), out=values)

    def _unpack(self, halves: Array, out: Array) -> None:
        bits = out.view(np.uint32)
        np.copyto(bits, halves)
        np.left_shift(bits, 16, out=bits)


def _rounded(values: Array) -> Array:
    """Scratch words whose upper halves are the numbers; the lower halves are anything."""
    bits = values.view(np.uint32)
    words = scratch(values.size)[0]
    np.right_shift(bits, 16, out=words)
    np.bitwise_and(words, 1, out=words)
    np.add(words, 0x7FFF, out=words)  # half of the last place, less a little where even is below
    np.add(words, bits, out=words)
    if np.isnan(values.max()):  # a NaN's payload would carry into its sign
        np.copyto(words, bits | 0x400000, where=np.isnan(values))
    return words
