"""8-bit integers in blocks with a scale each."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from smlt.core.sync.codecs.codec import Codec
from smlt.core.task import Array

BLOCK = 1024
"""Numbers that share a scale."""

SMALLEST_SCALE = np.float32(2.0**-126)
"""The smallest normal number: a scale has an inverse, and smaller numbers than half of it wait in the feedback."""


class Int8(Codec):
    """A byte a number and a float32 scale a block of 1024: max |x| / 127, nearest integer, ties to even.

    Block-wise quantisation, Dettmers et al., arXiv:2110.02861 (2021), with the linear code. Scales come first, then the
    integers. A block of zeros has the scale 0; one with a NaN or an infinity has the scale NaN and decodes to NaN
    throughout, so that it stays visible.
    """

    name: ClassVar[str] = "int8"

    def encoded_bytes(self, elements: int) -> int:
        """Four bytes a block, and a byte a number, rounded up to a multiple of 4."""
        return 4 * -(-elements // BLOCK) + 4 * -(-elements // 4)

    def _encode(self, values: Array, out: memoryview) -> None:
        blocks = -(-values.size // BLOCK)
        scales = np.frombuffer(out, np.float32, blocks)
        integers = np.frombuffer(out, np.int8, offset=4 * blocks)
        integers[values.size :] = 0
        for number in range(blocks):
            part = slice(number * BLOCK, min(number * BLOCK + BLOCK, values.size))
            peak = np.abs(values[part]).max()
            if np.isfinite(peak) and peak > 0:
                scale = np.maximum(peak / np.float32(127), SMALLEST_SCALE)
                scales[number] = scale
                integers[part] = np.rint(values[part] * (np.float32(1) / scale))
            else:
                scales[number] = 0 if peak == 0 else np.nan
                integers[part] = 0

    def _decode(self, data: memoryview, out: Array) -> None:
        blocks = -(-out.size // BLOCK)
        scales = np.frombuffer(data, np.float32, blocks)
        integers = np.frombuffer(data, np.int8, out.size, 4 * blocks)
        np.multiply(integers, np.repeat(scales, BLOCK)[: out.size], out=out)
