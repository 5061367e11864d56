"""Plain data and back: what a user's `state` holds, as numbers, strings, lists and maps; never pickle.

Arrays and tensors leave for a dictionary of arrays; what plain data lacks (tuples, maps with other keys) is tagged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from smlt.core.errors import TaskError
from smlt.core.task import Array

TAG = "!"
_INT64 = range(-(1 << 63), 1 << 63)


def encode(value: Any, path: str, arrays: dict[str, Array]) -> Any:
    """Plain data for `value`, exactly.

    Args:
        value: numbers, strings, None, lists, tuples, maps, arrays, tensors and variables, nested as deep as need be.
        path: where it stands, for the names of arrays and for errors: "user/ema".
        arrays: takes the arrays, under their paths.

    Raises:
        TaskError: something else is in it.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | str | float):
        return value
    if isinstance(value, int):
        return value if value in _INT64 else {TAG: "int", "digits": str(value)}
    if isinstance(value, list | tuple):
        items = [encode(item, f"{path}/{place}", arrays) for place, item in enumerate(value)]
        return items if isinstance(value, list) else {TAG: "tuple", "items": items}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value) and TAG not in value:
            return {key: encode(item, f"{path}/{key}", arrays) for key, item in value.items()}
        pairs = [[encode(key, path, arrays), encode(item, f"{path}/{key}", arrays)] for key, item in value.items()]
        return {TAG: "map", "pairs": pairs}
    if isinstance(value, np.ndarray | tf.Tensor | tf.Variable | keras.Variable):
        array = np.asarray(value.value if isinstance(value, keras.Variable) else value).copy()
        if array.dtype.hasobject:
            raise TaskError(f"{path} is an array of Python objects, which cannot be saved")
        arrays[path] = array
        return {TAG: "array", "name": path, "shape": list(array.shape)}
    raise TaskError(
        f"{path} holds a {type(value).__name__}, which cannot be saved",
        "state is made of numbers, strings, lists, maps and arrays",
    )


def decode(value: Any, arrays: Mapping[str, Array]) -> Any:
    """What `encode` was given; tensors and variables come back as numpy arrays, which are copies."""
    if isinstance(value, list | tuple):
        return [decode(item, arrays) for item in value]
    if not isinstance(value, Mapping):
        return value
    match value.get(TAG):
        case "int":
            return int(value["digits"])
        case "tuple":
            return tuple(decode(value["items"], arrays))
        case "map":
            return {decode(key, arrays): decode(item, arrays) for key, item in value["pairs"]}
        case "array":
            if value["name"] not in arrays:
                raise TaskError(f"the saved state lacks {value['name']}")
            return arrays[value["name"]].reshape(value["shape"]).copy()
        case _:
            return {key: decode(item, arrays) for key, item in value.items()}
