"""Only the largest numbers travel, with their places."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, sqrt
from typing import ClassVar

import numpy as np

from smlt.core.errors import ProtocolError
from smlt.core.sync.codecs.chunks import chunks, scratch
from smlt.core.sync.codecs.codec import Codec
from smlt.core.sync.names import CodecName
from smlt.core.task import Array

SHARE = 100
"""One number in so many is sent."""

STRIDE = 61
"""One number in so many is looked at to guess from which magnitude on; odd, so that it meets no layer's width."""

MAGNITUDE = 0x7FFFFFFF
"""All of a float32 but its sign; as integers, magnitudes are in order, and NaN comes after infinity."""


class TopK(Codec):
    """One number in a hundred, at least one: those of the largest magnitude, as they are; the others become 0.

    Sparse gradients, Aji & Heafield, EMNLP 2017. Exactly ceil(elements / 100) numbers are sent: their places (uint32,
    ascending), then the numbers. Among equals the first ones are sent; NaN counts as largest, so that it stays visible.
    """

    name: ClassVar[CodecName] = "topk"

    def encoded_bytes(self, elements: int) -> int:
        """Eight bytes for each number that is sent."""
        return 8 * _sent(elements)

    def _encode(self, values: Array, out: memoryview) -> None:
        self._send(values, out)

    def _encode_with_feedback(self, values: Array, out: memoryview) -> None:
        places = self._send(values, out)
        values[places] -= values[places]  # 0, but for what is not finite

    def _send(self, values: Array, out: memoryview) -> Array:
        count = _sent(values.size)
        places = _largest(values.view(np.uint32), count)
        np.frombuffer(out, np.uint32, count)[:] = places
        np.frombuffer(out, np.float32, count, 4 * count)[:] = values[places]
        return places

    def _decode(self, data: memoryview, out: Array) -> None:
        count = _sent(out.size)
        places = np.frombuffer(data, np.uint32, count)
        if places.max() >= out.size:
            raise ProtocolError(f"topk sent a number for place {places.max()} of {out.size}")
        out.fill(0)
        out[places] = np.frombuffer(data, np.float32, count, 4 * count)


def _sent(elements: int) -> int:
    return -(-elements // SHARE)


def _largest(bits: Array, count: int) -> Array:
    """Places of the `count` largest magnitudes, ascending; the first ones among equals.

    Guesses from a sample leave few candidates, of which the largest are taken exactly: a wrong guess costs time and
    changes nothing. Candidates are sorted whole: numpy's partition takes 20 times as long where most are equal.
    """
    for guess in _guesses(bits, count):
        places, keys = _above(bits, guess)
        if places.size >= count:
            last = np.sort(keys)[-count]
            chosen = keys > last
            chosen[np.flatnonzero(keys == last)[: count - np.count_nonzero(chosen)]] = True
            largest: Array = places[chosen]
            return largest
        equal = _first_equal(bits, guess, count - places.size)
        if places.size + equal.size == count:
            return np.sort(np.concatenate([places, equal]))
    raise AssertionError("no magnitude is below 0")


def _guesses(bits: Array, count: int) -> Iterator[np.uint32]:
    """Magnitudes that probably a few more than `count` exceed, from the sharpest guess down to 0."""
    sample = np.sort(bits[::STRIDE] & MAGNITUDE)
    expected = count / STRIDE
    rank = ceil(expected + 4 * sqrt(expected) + 4)
    while rank < sample.size:
        yield sample[-rank]
        rank *= 2
    yield np.uint32(0)


def _above(bits: Array, threshold: np.uint32) -> tuple[Array, Array]:
    """Places, ascending, and magnitudes of all numbers beyond a magnitude."""
    places, keys = [], []
    for chunk in chunks(bits.size):
        magnitudes = np.bitwise_and(bits[chunk], MAGNITUDE, out=scratch(chunk.stop - chunk.start)[0])
        found = np.flatnonzero(magnitudes > threshold)
        places.append(found + chunk.start)
        keys.append(magnitudes[found])
    return np.concatenate(places), np.concatenate(keys)


def _first_equal(bits: Array, magnitude: np.uint32, count: int) -> Array:
    """Places of the first `count` numbers of a magnitude, ascending; all where there are fewer."""
    places = [np.empty(0, np.int64)]
    for chunk in chunks(bits.size):
        magnitudes = np.bitwise_and(bits[chunk], MAGNITUDE, out=scratch(chunk.stop - chunk.start)[0])
        places.append(np.flatnonzero(magnitudes == magnitude)[:count] + chunk.start)
        count -= places[-1].size
        if not count:
            break
    return np.concatenate(places)
