"""Many variables at once: read and written by one compiled call each, as one by one they cost 0.1 ms apiece.

What is handed out is read-only and stays as it is when the variables change: TensorFlow copies on write.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from smlt.core.task import Array


def raw(variables: Iterable[Any]) -> list[Any]:
    """Keras' variables as TensorFlow's own."""
    return [variable.value for variable in variables]


class Bulk:
    """Some of TensorFlow's variables, in order."""

    def __init__(self, variables: Sequence[Any]) -> None:
        self.variables = list(variables)
        self._read: Any = None
        self._write: Any = None

    def read(self) -> list[Array]:
        """Their values."""
        if not self.variables:
            return []
        if self._read is None:
            self._read = tf.function(lambda: [tf.identity(each) for each in self.variables], autograph=False)
            self._read = self._read.get_concrete_function()
        return [np.asarray(tensor) for tensor in self._read()]

    def write(self, arrays: Sequence[Array]) -> None:
        """Set them; the arrays are copied."""
        if not self.variables:
            return
        if self._write is None:
            specs = [tf.TensorSpec(each.shape, each.dtype) for each in self.variables]
            self._write = tf.function(self._assign, autograph=False).get_concrete_function(specs)
        self._write([tf.constant(array) for array in arrays])

    def _assign(self, values: Sequence[Any]) -> None:
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)


class FlatBulk:
    """Some of TensorFlow's float32 variables, in order, as one vector.

    Attributes:
        sizes: elements of each.
    """

    def __init__(self, variables: Sequence[Any]) -> None:
        self._variables = list(variables)
        self.sizes = [int(each.shape.num_elements()) for each in self._variables]
        self._read: Any = None
        self._write: Any = None

    def read(self) -> Array:
        """Their values, one after the other."""
        if not self._variables:
            return np.zeros(0, np.float32)
        if self._read is None:
            self._read = tf.function(self._joined, autograph=False).get_concrete_function()
        return np.asarray(self._read())

    def write(self, flat: Array) -> None:
        """Set them; the vector is copied."""
        if not self._variables:
            return
        if self._write is None:
            spec = tf.TensorSpec((sum(self.sizes),), tf.float32)
            self._write = tf.function(self._assign, autograph=False).get_concrete_function(spec)
        self._write(tf.constant(flat))

    def _joined(self) -> Any:
        return tf.concat([tf.reshape(each, (-1,)) for each in self._variables], 0)

    def _assign(self, flat: Any) -> None:
        for variable, piece in zip(self._variables, tf.split(flat, self.sizes), strict=True):
            variable.assign(tf.reshape(piece, variable.shape))
