"""Plain data and back where tensors and variables may be in it; they come back as numpy arrays."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from smlt.core.task import Array
from smlt.frameworks.plain import PlainData, put_array


class _KerasData(PlainData):
    def _do_encode_array(self, value: Any, path: str, arrays: dict[str, Array]) -> dict[str, Any] | None:
        if isinstance(value, keras.Variable):
            value = value.value
        if not isinstance(value, np.ndarray | tf.Tensor | tf.Variable):
            return None
        return put_array(np.asarray(value).copy(), path, arrays)


encode, decode = _KerasData().encode, _KerasData().decode
"""See `PlainData`; arrays that leave are copies."""
