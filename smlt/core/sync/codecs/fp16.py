"""IEEE half precision, by arithmetic on float32 and its bits: numpy's own casts are several times slower.

Both ways let float32 addition do the rounding and the subnormals, by magic numbers as in Fabian Giesen's "half-float
conversions" (https://gist.github.com/rygorous/2156668) and Marat Dukhan's FP16 (https://github.com/Maratyszcza/FP16).
No float32 subnormal is made from a number that is not one, so that a flush-to-zero mode changes nothing.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from smlt.core.sync.codecs.chunks import scratch
from smlt.core.sync.codecs.halves import Halves
from smlt.core.sync.names import CodecName
from smlt.core.task import Array

LARGEST = 0x477FE000
"""Bits of 65504, the largest finite half, as float32."""

INFINITE = 0x7F800000
"""Bits of infinity, which are float32's exponent; greater magnitudes are NaN."""


def _power(exponent: int) -> int:
    """Bits of 2 ** exponent as float32."""
    return exponent + 127 << 23


class Fp16(Halves):
    """Two bytes a number: 11 bits of precision from 6.1e-5 to 65504, steps of 6e-8 below; ties to even.

    Finite numbers beyond 65504 are sent as 65504, so that the rest can be fed back; NaN and infinity stay.
    """

    name: ClassVar[CodecName] = "fp16"

    def _pack(self, values: Array, halves: Array) -> None:
        _rounded(values, halves)

    def _pack_with_feedback(self, values: Array, halves: Array) -> None:
        peak = _rounded(values, halves)
        rounded, base, sign, _ = scratch(values.size)
        sent = rounded.view(np.float32)
        np.subtract(sent, base.view(np.float32), out=sent)
        np.left_shift(sign, 16, out=sign)
        np.bitwise_or(rounded, sign, out=rounded)
        if peak >= INFINITE:
            np.copyto(sent, values, where=~np.isfinite(values))
        np.subtract(values, sent, out=values)

    def _unpack(self, halves: Array, out: Array) -> None:
        sign, bits = scratch(out.size)[0], out.view(np.uint32)
        np.copyto(bits, halves)
        np.bitwise_and(bits, 0x8000, out=sign)
        np.left_shift(sign, 16, out=sign)
        np.bitwise_and(bits, 0x7FFF, out=bits)
        peak = bits.max()
        np.left_shift(bits, 13, out=bits)
        np.add(bits, _power(-15), out=bits)
        low = scratch(out.size)[1].view(np.float32)
        np.clip(out, 2.0**-15, 2.0**-14, out=low)
        np.subtract(low, 2.0**-14, out=low)
        np.add(out, low, out=out)
        if peak >= 0x7C00:
            nan, inf = bits > _power(16), bits == _power(16)
            np.copyto(bits, 0x7FC00000, where=nan)
            np.copyto(bits, INFINITE, where=inf)
        np.bitwise_or(bits, sign, out=bits)


def _rounded(values: Array, halves: Array) -> np.uint32:
    """Fill `halves`; returns the bits of the largest magnitude.

    Added to 2 ** 13 times its own power of two, a float32 keeps the 11 bits of a half, as an integer in its lowest
    bits; with the power of the smallest normal half at least, subnormals come right too. Leaves in the scratch those
    sums, what was added, and the signs, at bit 15.
    """
    rounded, base, sign, packed = scratch(values.size)
    bits = values.view(np.uint32)
    np.bitwise_and(bits, 0x7FFFFFFF, out=rounded)
    peak: np.uint32 = rounded.max()
    if peak > LARGEST:
        np.minimum(rounded, LARGEST, out=rounded)
    np.clip(rounded, _power(-14), _power(15), out=base)
    np.bitwise_and(base, INFINITE, out=base)
    np.add(base, (13 << 23) + 0x800, out=base)  # 0x800: what the biases of the exponents differ by, modulo 2 ** 16
    np.add(rounded.view(np.float32), base.view(np.float32), out=rounded.view(np.float32))
    np.right_shift(base, 13, out=packed)
    np.add(packed, rounded, out=packed)
    np.right_shift(bits, 16, out=sign)
    np.bitwise_and(sign, 0x8000, out=sign)
    np.add(packed, sign, out=packed)
    np.copyto(halves, packed, casting="unsafe")
    if peak >= INFINITE:
        np.copyto(halves, sign | 0x7C00, where=np.isinf(values), casting="unsafe")
        np.copyto(halves, sign | 0x7E00, where=np.isnan(values), casting="unsafe")
    return peak
