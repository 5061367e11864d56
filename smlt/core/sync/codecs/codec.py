"""What a codec is: float32 numbers as fewer bytes, at the price of an error that the caller feeds back.

Numpy only. What travels beside the numbers, and who keeps the error, is not known here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from smlt.core.errors import ProtocolError
from smlt.core.sync.names import CodecName
from smlt.core.task import Array


class Codec(ABC):
    """How float32 numbers travel: fewer bytes, at the price of an error that the caller feeds back.

    Pure, stateless and deterministic: the same numbers give the same bytes in every process and thread, at any
    alignment. Encoded numbers are in the machine's byte order, as everything in a contribution is.

    What was lost is added to the next step's numbers, so that it arrives later: Seide et al., Interspeech 2014, for
    one bit a number; Karimireddy et al., ICML 2019, for every codec whose error is smaller than what it encodes.
    """

    name: ClassVar[CodecName]
    """As in `[sync].codec`."""

    @abstractmethod
    def encoded_bytes(self, elements: int) -> int:
        """Bytes of any `elements` numbers: fixed by their count alone, a multiple of 4, and 0 for none."""

    def encode(self, values: Array, out: memoryview) -> None:
        """Encode numbers.

        Args:
            values: float32, shape (elements,), contiguous; not changed.
            out: `encoded_bytes(elements)` bytes, all of which are written.

        Raises:
            ProtocolError: the dtype, the shape or the number of bytes is another.
        """
        self._check(values, out)
        if values.size:
            with np.errstate(all="ignore"):
                self._encode(values, out)

    def decode(self, data: memoryview, out: Array) -> None:
        """Decode what `encode` made of as many numbers as `out` has.

        Args:
            data: `encoded_bytes(elements)` bytes.
            out: float32, shape (elements,), contiguous; overwritten.

        Raises:
            ProtocolError: the dtype, the shape or the number of bytes is another, or the bytes are no encoding.
        """
        self._check(out, data)
        if out.size:
            with np.errstate(all="ignore"):
                self._decode(data, out)

    def encode_with_feedback(self, values: Array, out: memoryview) -> None:
        """Encode numbers, which become what was lost: values - decode(encode(values)), in place.

        A number that is not finite, or becomes infinite on the way, leaves one behind that is not finite either, and
        that must not be fed back.

        Args:
            values: float32, shape (elements,), contiguous.
            out: `encoded_bytes(elements)` bytes, all of which are written, the same as by `encode`.

        Raises:
            ProtocolError: the dtype, the shape or the number of bytes is another.
        """
        self._check(values, out)
        if values.size:
            with np.errstate(all="ignore"):
                self._encode_with_feedback(values, out)

    def _check(self, numbers: Array, encoded: memoryview) -> None:
        if numbers.dtype != np.float32 or numbers.ndim != 1 or not numbers.flags.c_contiguous:
            raise ProtocolError(f"{self.name} takes contiguous 1-D float32, not {numbers.dtype} {numbers.shape}")
        if encoded.nbytes != self.encoded_bytes(numbers.size):
            wanted = self.encoded_bytes(numbers.size)
            raise ProtocolError(f"{numbers.size} numbers as {self.name} are {wanted} bytes, not {encoded.nbytes}")

    @abstractmethod
    def _encode(self, values: Array, out: memoryview) -> None:
        """As `encode`; arguments are right, there is a number, and floating-point errors are no warnings."""

    @abstractmethod
    def _decode(self, data: memoryview, out: Array) -> None:
        """As `decode`; arguments are right, there is a number, and floating-point errors are no warnings."""

    def _encode_with_feedback(self, values: Array, out: memoryview) -> None:
        """As `encode_with_feedback`; to be overridden where one pass does both."""
        decoded = np.empty_like(values)
        self._encode(values, out)
        self._decode(out, decoded)
        np.subtract(values, decoded, out=values)
