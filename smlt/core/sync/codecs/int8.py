"""8-bit integers in blocks with a scale each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from smlt.core.sync.codecs.chunks import chunks, scratch
from smlt.core.sync.codecs.codec import Codec
from smlt.core.sync.names import CodecName
from smlt.core.task import Array

BLOCK = 1024
"""Numbers that share a scale; a chunk is a whole number of blocks."""

SMALLEST_SCALE = 2.0**-126
"""The smallest normal float32: a smaller one would be too coarse. Magnitudes up to half of it become 0."""

LARGEST_SCALE = ((2**24 - 1) * 2**6 // 127) * 2.0**98
"""The largest float32 of which 127 times is finite."""


class Int8(Codec):
    """A byte a number and a float32 scale a block of 1024: max |x| / 127, nearest integer, ties to even.

    Block-wise quantisation, Dettmers et al., arXiv:2110.02861 (2021), with the linear code. Scales come first, then the
    integers. A block that becomes all zeros has the scale 0. One with a NaN or an infinity has the scale NaN and
    decodes to NaN throughout, so that it stays visible.
    """

    name: ClassVar[CodecName] = "int8"

    def encoded_bytes(self, elements: int) -> int:
        """Four bytes a block, and a byte a number, rounded up to a multiple of 4."""
        return 4 * _blocks(elements) + 4 * -(-elements // 4)

    def _encode(self, values: Array, out: memoryview) -> None:
        self._quantise(values, out, feeds_back=False)

    def _encode_with_feedback(self, values: Array, out: memoryview) -> None:
        self._quantise(values, out, feeds_back=True)

    def _quantise(self, values: Array, out: memoryview, feeds_back: bool) -> None:
        scales = np.frombuffer(out, np.float32, _blocks(values.size))
        integers = np.frombuffer(out, np.int8, offset=scales.nbytes)
        integers[values.size :] = 0
        for part, blocks in _parts(values.size):
            numbers = values[part].reshape(-1, min(BLOCK, part.stop - part.start))
            rounded = scratch(numbers.size)[0].view(np.float32).reshape(numbers.shape)
            np.abs(numbers, out=rounded)
            scale = _scales_for(rounded.max(axis=1, keepdims=True))
            np.divide(numbers, np.where(scale > 0, scale, np.inf), out=rounded)
            np.rint(rounded, out=rounded)
            if np.isnan(scale).any():
                np.nan_to_num(rounded, copy=False)
            np.copyto(integers[part].reshape(numbers.shape), rounded, casting="unsafe")
            scales[blocks] = scale[:, 0]
            if feeds_back:
                np.multiply(rounded, scale, out=rounded)
                np.subtract(numbers, rounded, out=numbers)

    def _decode(self, data: memoryview, out: Array) -> None:
        scales = np.frombuffer(data, np.float32, _blocks(out.size))
        integers = np.frombuffer(data, np.int8, out.size, scales.nbytes)
        for part, blocks in _parts(out.size):
            numbers = out[part].reshape(-1, min(BLOCK, part.stop - part.start))
            np.copyto(numbers, integers[part].reshape(numbers.shape))
            np.multiply(numbers, scales[blocks, None], out=numbers)


def _blocks(elements: int) -> int:
    return -(-elements // BLOCK)


def _parts(elements: int) -> Iterator[tuple[slice, slice]]:
    """Chunks of whole blocks, then a last block that is shorter, if there is one: which numbers, which blocks."""
    whole = elements // BLOCK * BLOCK
    for part in chunks(whole):
        yield part, slice(part.start // BLOCK, part.stop // BLOCK)
    if whole < elements:
        yield slice(whole, elements), slice(whole // BLOCK, None)


def _scales_for(peaks: Array) -> Array:
    """The scales of blocks whose largest magnitudes are given: 0 where all become 0, NaN for what is not finite."""
    scales = np.clip(peaks / 127, SMALLEST_SCALE, LARGEST_SCALE)
    scales[peaks <= SMALLEST_SCALE / 2] = 0
    scales[~np.isfinite(peaks)] = np.nan
    return scales
