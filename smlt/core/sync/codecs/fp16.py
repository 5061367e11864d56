"""IEEE half precision, by arithmetic on float32 and its bits."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from smlt.core.sync.codecs.codec import Codec
from smlt.core.task import Array


class Fp16(Codec):
    """Two bytes a number: 11 bits of precision from 6.1e-5 to 65504, steps of 6e-8 below; ties to even.

    Finite numbers beyond 65504 are sent as 65504, so that the rest can be fed back; NaN and infinity stay.
    """

    name: ClassVar[str] = "fp16"

    def encoded_bytes(self, elements: int) -> int:
        """Two bytes a number, and two more after an odd number of them."""
        return -(-elements // 2) * 4

    def _encode(self, values: Array, out: memoryview) -> None:
        halves = np.frombuffer(out, np.uint16)
        halves[values.size :] = 0
        bits = values.view(np.uint32)
        magnitude = np.minimum(bits & 0x7FFFFFFF, 0x477FE000)
        base = (np.maximum(magnitude, 113 << 23) & 0x7F800000) + (13 << 23)
        rounded = (magnitude.view(np.float32) + base.view(np.float32)).view(np.uint32)
        packed = rounded + (base >> 13) + 0x800 & 0xFFFF
        packed = np.where(np.isinf(values), 0x7C00, np.where(np.isnan(values), 0x7E00, packed))
        halves[: values.size] = packed | bits >> 16 & 0x8000

    def _decode(self, data: memoryview, out: Array) -> None:
        halves = np.frombuffer(data, np.uint16, out.size).astype(np.uint32)
        exponent = np.maximum(halves & 0x7C00, 0x400)
        base = (exponent << 13) + (125 << 23)
        number = (base + (halves & 0x7FFF) - exponent + 0x400).view(np.float32) - base.view(np.float32)
        special = np.where(halves & 0x3FF, 0x7FC00000, 0x7F800000)
        bits = np.where((halves & 0x7C00) == 0x7C00, special, number.view(np.uint32))
        out.view(np.uint32)[:] = bits | (halves & 0x8000) << 16
