"""Plain data and back: what a user's `state` or a scheduler holds, as numbers, strings, lists and maps; never pickle.

Arrays and tensors leave for a dictionary of arrays; what plain data lacks (tuples, maps with other keys) is tagged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from smlt.core.errors import TaskError
from smlt.core.task import Array

TAG = "!"
_INT64 = range(-(1 << 63), 1 << 63)


class PlainData:
    """Encodes and decodes; a framework's own adds its tensors."""

    def encode(self, value: Any, path: str, arrays: dict[str, Array]) -> Any:
        """Plain data for `value`, exactly.

        Args:
            value: numbers, strings, None, lists, tuples, maps, arrays and tensors, nested as deep as need be.
            path: where it stands, for the names of arrays and for errors: "user/ema".
            arrays: takes the arrays and tensors, under their paths.

        Raises:
            TaskError: something else is in it.
        """
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, int):
            return int(value) if value in _INT64 else {TAG: "int", "digits": str(value)}
        if isinstance(value, float):
            return float(value)
        if isinstance(value, list | tuple):
            items = [self.encode(item, f"{path}/{place}", arrays) for place, item in enumerate(value)]
            return items if isinstance(value, list) else {TAG: "tuple", "items": items}
        if isinstance(value, Mapping):
            return self._encode_map(value, path, arrays)
        encoded = self._do_encode_array(value, path, arrays)
        if encoded is None:
            raise TaskError(
                f"{path} holds a {type(value).__name__}, which cannot be saved",
                "state is made of numbers, strings, lists, maps, tensors and arrays",
            )
        return encoded

    def decode(self, value: Any, arrays: Mapping[str, Array]) -> Any:
        """What `encode` was given; arrays and tensors are copies.

        Raises:
            TaskError: an array is missing, or does not fit.
        """
        if isinstance(value, list | tuple):
            return [self.decode(item, arrays) for item in value]
        if not isinstance(value, Mapping):
            return value
        match value.get(TAG):
            case "int":
                return int(value["digits"])
            case "tuple":
                return tuple(self.decode(value["items"], arrays))
            case "map":
                pairs = [(self.decode(key, arrays), self.decode(item, arrays)) for key, item in value["pairs"]]
                return Counter(dict(pairs)) if value["counter"] else dict(pairs)
            case None:
                return {key: self.decode(item, arrays) for key, item in value.items()}
            case _:
                if value["name"] not in arrays:
                    raise TaskError(f"the saved state lacks {value['name']}")
                return self._do_decode_array(value, arrays[value["name"]])

    def _encode_map(self, value: Mapping[Any, Any], path: str, arrays: dict[str, Array]) -> dict[str, Any]:
        counts = isinstance(value, Counter)
        items = [(key, self.encode(item, f"{path}/{key}", arrays)) for key, item in value.items()]
        if all(isinstance(key, str) for key in value) and TAG not in value and not counts:
            return dict(items)
        pairs = [[self.encode(key, path, arrays), item] for key, item in items]
        return {TAG: "map", "counter": counts, "pairs": pairs}

    def _do_encode_array(self, value: Any, path: str, arrays: dict[str, Array]) -> dict[str, Any] | None:
        """Put an array under its path; what stands in its place, or None where it is no array."""
        return put_array(value, path, arrays) if isinstance(value, np.ndarray) else None

    def _do_decode_array(self, value: Mapping[str, Any], array: Array) -> Any:
        """A copy of the array that `value` stands for."""
        return array.reshape(value["shape"]).copy()


def put_array(array: Array, path: str, arrays: dict[str, Array]) -> dict[str, Any]:
    """Put an array, in C order, under its path; returns what stands in its place.

    Raises:
        TaskError: it holds Python objects.
    """
    if array.dtype.hasobject:
        raise TaskError(f"{path} is an array of Python objects, which cannot be saved")
    arrays[path] = np.asarray(array, order="C")
    return {TAG: "array", "name": path, "shape": list(array.shape)}
